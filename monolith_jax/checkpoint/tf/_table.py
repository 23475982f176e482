"""The index file: a table as in LevelDB (tensorflow/core/lib/io/table.cc, format.cc, block.cc).

Blocks of entries, each (varint shared, varint rest, varint value length, rest of the key, value),
then the restart points and their count, a type byte and the masked crc32c of both; a footer of 48
bytes with the places of the metaindex and index blocks and a magic number.

Reading takes memory and time in proportion to the file, whatever the file says: blocks follow each
other, keys ascend, and the keys together may be no longer than 64 times the file.
"""

import itertools
import operator
import struct
from collections.abc import Iterator
from typing import NamedTuple

from monolith_jax.checkpoint.tf import _snappy
from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._wire import Malformed, read_varint

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
TRAILER = 5
_KEY_GAIN = 64
_KEY_BYTES = 1 << 24  # always allowed


class Block(NamedTuple):
    """A data block, and where its entries lie.

    Attributes:
      content: its bytes, checked and decompressed.
      keys: of the entries, ascending.
      starts: where the value of each entry begins in the content.
      ends: where it ends.
    """

    content: bytes
    keys: list[bytes]
    starts: list[int]
    ends: list[int]


def read_table(data: bytes) -> list[tuple[bytes, bytes]]:
    """Returns the (key, value) pairs of a table, in their order.

    Raises:
      Malformed: it is damaged, or no table.
    """
    return [
        (key, block.content[start:end])
        for block in read_blocks(data)
        for key, start, end in zip(*block[1:], strict=True)
    ]


def read_blocks(data: bytes) -> Iterator[Block]:
    """Yields the data blocks of a table, their values still in place.

    Raises:
      Malformed: it is damaged, or no table.
    """
    allowed = _KEY_BYTES + _KEY_GAIN * len(data)
    last: bytes | None = None
    for content in data_blocks(data):
        block = _spans(content, allowed)
        allowed -= sum(map(len, block.keys))
        keys = block.keys if last is None else [last, *block.keys]
        if not all(map(operator.lt, keys, keys[1:])):
            wrong = next(b for a, b in itertools.pairwise(keys) if b <= a)
            raise Malformed(f"the key {wrong[:80]!r} is out of order")
        last = keys[-1] if keys else None
        yield block


def data_blocks(data: bytes) -> Iterator[bytes]:
    """Yields the contents of the data blocks, checked and decompressed."""
    if len(data) < FOOTER:
        raise Malformed(f"{len(data)} bytes are too few for a table")
    footer = data[-FOOTER:]
    if struct.unpack("<Q", footer[40:])[0] != MAGIC:
        raise Malformed("it does not end as a table does (cut off, or not a V2 checkpoint's index)")
    _, at = _handle(footer[:40], 0)  # the metaindex, which is empty
    (start, size), _ = _handle(footer[:40], at)
    end = len(data) - FOOTER
    before = 0
    for key, value in block_entries(read_block(data, start, size, end)):
        (place, length), used = _handle(value, 0)
        if used != len(value):
            raise Malformed("the place of a block has bytes after it")
        if place < before:  # a loop, or the same block again
            raise Malformed(f"the blocks overlap before {key[:80]!r}")
        before = place + length + TRAILER
        yield read_block(data, place, length, start)


def read_block(data: bytes, start: int, size: int, end: int) -> bytes:
    """Returns the contents of the block at `start`, which must lie before `end`."""
    if start + size + TRAILER > end:
        raise Malformed(f"a block at {start} of {size} bytes does not fit in the file")
    block = data[start : start + size + 1]
    stored = struct.unpack_from("<I", data, start + size + 1)[0]
    if mask(crc32c(block)) != stored:
        raise Malformed(f"the block at {start} is damaged: its crc32c does not match")
    kind = block[-1]
    if kind == 0:
        return block[:-1]
    if kind == 1:
        return _snappy.decompress(block[:-1])
    raise Malformed(f"the block at {start} has the compression {kind}; 0 and 1 (snappy) are known")


def block_entries(block: bytes) -> list[tuple[bytes, bytes]]:
    """Returns the (key, value) pairs of a block's contents."""
    _, keys, starts, ends = _spans(block, _KEY_BYTES + _KEY_GAIN * len(block))
    return [(k, block[start:end]) for k, start, end in zip(keys, starts, ends, strict=True)]


def _spans(block: bytes, allowed: int) -> Block:
    """Returns where the entries of a block lie; its keys may take `allowed` bytes together."""
    end = entries_end(block)
    keys: list[bytes] = []
    starts: list[int] = []
    ends: list[int] = []
    at, key = 0, b""
    while at < end:
        shared, rest, length = block[at], block[at + 1], block[at + 2]  # before a count of 4 bytes
        if (shared | rest | length) < 128:  # as good as always
            at += 3
        else:
            shared, at = read_varint(block, at)
            rest, at = read_varint(block, at)
            length, at = read_varint(block, at)
        start = at + rest
        at, begin = start + length, at
        if shared > len(key) or at > end:
            raise Malformed(f"an entry after {key[:80]!r} does not fit in its block")
        allowed -= shared + rest
        if allowed < 0:
            raise Malformed("its keys are longer than such a file can need")
        key = key[:shared] + block[begin:start]
        keys.append(key)
        starts.append(start)
        ends.append(at)
    return Block(block, keys, starts, ends)


def entries_end(block: bytes) -> int:
    """Returns where the entries of a block end and its restart points begin."""
    if len(block) < 4:
        raise Malformed("a block is too short")
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    if end < 0:
        raise Malformed("a block has more restart points than bytes")
    return end


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    start, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (start, size), at
