"""The index file written, byte for byte as TensorFlow does (tensorflow/core/lib/io).

As table_builder.cc: blocks of 256 KiB, a restart point at every 16th entry, no compression, no
entries in the metaindex; the index block's keys are the shortest that lie between two blocks.
"""

import struct
from collections.abc import Iterable

from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._table import FOOTER, MAGIC
from monolith_jax.checkpoint.tf._wire import varint

BLOCK_SIZE = 262144
_RESTART = 16


class _Block:
    """A block being built: entries with their keys cut to what differs from the one before."""

    def __init__(self, restart: int) -> None:
        self._every, self._since = restart, 0
        self._out, self._restarts, self._last = bytearray(), [0], b""

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since < self._every:
            shared = _common(self._last, key)
        else:
            self._restarts.append(len(self._out))
            self._since = 0
        rest = key[shared:]
        self._out += varint(shared) + varint(len(rest)) + varint(len(value)) + rest + value
        self._last, self._since = key, self._since + 1

    def size(self) -> int:
        return len(self._out) + 4 * len(self._restarts) + 4

    def bytes(self) -> bytes:
        count = len(self._restarts)
        return bytes(self._out) + struct.pack(f"<{count + 1}I", *self._restarts, count)


def write_table(entries: Iterable[tuple[bytes, bytes]], block_size: int = BLOCK_SIZE) -> bytes:
    """Returns the table of (key, value) pairs whose keys ascend.

    Args:
      entries: the pairs.
      block_size: bytes at which a block ends; TensorFlow's by default.
    """
    out = bytearray()
    index = _Block(1)
    block, last, pending = _Block(_RESTART), b"", None
    for key, value in entries:
        if pending is not None:
            index.add(_separator(last, key), pending)
            pending = None
        block.add(key, value)
        last = key
        if block.size() >= block_size:
            pending, block = _append(out, block), _Block(_RESTART)
    if block.size() > 8:
        pending = _append(out, block)
    if pending is not None:
        index.add(_successor(last), pending)
    handles = _append(out, _Block(_RESTART)) + _append(out, index)
    out += handles.ljust(FOOTER - 8, b"\0") + struct.pack("<Q", MAGIC)
    return bytes(out)


def _append(out: bytearray, block: _Block) -> bytes:
    """Writes a block with its trailer; returns its handle."""
    start, content = len(out), block.bytes()
    framed = content + b"\0"
    out += framed + struct.pack("<I", mask(crc32c(framed)))
    return varint(start) + varint(len(content))


def _common(a: bytes, b: bytes) -> int:
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    low = 0
    while limit - low > 1:  # a[:low] == b[:low], a[:limit] != b[:limit]
        middle = (low + limit) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            limit = middle
    return low


def _separator(start: bytes, limit: bytes) -> bytes:
    """Returns a short key from `start` on and before `limit`."""
    at = _common(start, limit)
    if at == min(len(start), len(limit)):
        return start
    if start[at] < 0xFF and start[at] + 1 < limit[at]:
        return start[:at] + bytes([start[at] + 1])
    return start


def _successor(key: bytes) -> bytes:
    """Returns a short key that is not before `key`."""
    for at, byte in enumerate(key):
        if byte != 0xFF:
            return key[:at] + bytes([byte + 1])
    return key
