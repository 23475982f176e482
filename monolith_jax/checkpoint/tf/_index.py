"""The index of a bundle: its header and entries, checked against each other."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from monolith_jax import storage
from monolith_jax.checkpoint.tf._columns import decode_columns
from monolith_jax.checkpoint.tf._errors import blame, no_bundle
from monolith_jax.checkpoint.tf._protos import Entry, decode_entry, decode_header, decode_shape
from monolith_jax.checkpoint.tf._table import Block, read_blocks
from monolith_jax.checkpoint.tf._wire import Malformed

SLICE_KEY = b"\x00"  # how the keys of slices begin
SLICE_END = b"\x01"  # where they end
_NO_SLICES = itertools.repeat(())
_ENTRY: Callable[[tuple[object, ...]], Entry] = functools.partial(tuple.__new__, Entry)  # fast


class IndexFile(NamedTuple):
    """What an index holds.

    Attributes:
      shards: the number of data files.
      entries: key -> entry; the keys of slices among them.
    """

    shards: int
    entries: dict[bytes, Entry]


def index_path(prefix: str) -> str:
    """Returns the path of a bundle's index."""
    return f"{prefix}.index"


def read_index(prefix: str) -> IndexFile:
    """Reads and checks the index of a bundle.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    path = index_path(prefix)
    try:
        data = storage.read_bytes(path)
    except storage.NotFoundError:
        raise no_bundle(prefix) from None
    except storage.StorageError as error:
        with blame(path):
            raise error
    with blame(path):
        return decode_index(data)


def decode_index(data: bytes) -> IndexFile:
    """Returns what the bytes of an index hold.

    Raises:
      Malformed: they are damaged; the message names the key.
    """
    shards = 0
    entries: dict[bytes, Entry] = {}
    columns = []
    shapes: dict[bytes, tuple[int, ...]] = {}
    for block in read_blocks(data):
        if not shards:
            if block.keys[:1] != [b""]:
                break
            shards = decode_header(block.content[block.starts[0] : block.ends[0]])
            block = Block(block.content, block.keys[1:], block.starts[1:], block.ends[1:])
        found, places = _decode_block(block, shapes)
        entries.update(zip(block.keys, found, strict=True))
        columns.append(places)
    if not shards:
        raise Malformed("it has no header (cut off, or not a V2 checkpoint's index)")
    _check_places(shards, entries, np.concatenate(columns, axis=1))
    return IndexFile(shards, entries)


def _decode_block(
    block: Block, shapes: dict[bytes, tuple[int, ...]]
) -> tuple[list[Entry], np.ndarray]:
    """Returns the entries of a block, and their shard, offset and size, [3, entries] of uint64."""
    content, keys, starts, ends = block
    columns = decode_columns(content, starts, ends)
    found_shapes: list[tuple[int, ...] | None] = []
    for key, start, end, usual in zip(
        keys, starts, columns.shape_end.tolist(), columns.usual.tolist(), strict=True
    ):
        raw = content[start + 4 : end]
        shape = shapes.get(raw) if usual else ()
        if shape is None:
            with _key_named(key):
                shape = shapes[raw] = decode_shape(raw)
        found_shapes.append(shape)
    numbers = [column.tolist() for column in columns.places]
    rows = zip(
        columns.dtype.tolist(),
        found_shapes,
        *numbers,
        columns.crc.tolist(),
        _NO_SLICES,
        strict=False,
    )
    entries = list(map(_ENTRY, rows))
    places = np.stack(columns.places)
    for at in np.flatnonzero(~columns.usual).tolist():
        with _key_named(keys[at]):
            entries[at] = decode_entry(content[starts[at] : ends[at]], shapes)
        places[:, at] = (0, 0, 0) if entries[at].slices else entries[at][2:5]
    return entries, places


@contextlib.contextmanager
def _key_named(key: bytes) -> Iterator[None]:
    try:
        yield
    except Malformed as error:
        raise Malformed(f"the entry of {text(key)!r}: {error}") from None


def text(key: bytes) -> str:
    """Returns a key as a name; bytes that are not UTF-8 survive the way there and back."""
    return key.decode("utf-8", "surrogateescape")


def names(keys: Iterable[bytes]) -> list[str]:
    """Returns what `text` returns for each key, all at once if none holds a zero byte."""
    keys = list(keys)
    joined = b"\0".join(keys)
    if keys and joined.count(b"\0") == len(keys) - 1:
        return text(joined).split("\0")
    return [text(key) for key in keys]


def _check_places(shards: int, entries: dict[bytes, Entry], places: np.ndarray) -> None:
    """Checks that each entry lies in a data file of its own bytes.

    Args:
      shards: the number of data files.
      entries: key -> entry, to name one in an error.
      places: [3, entries] shard, offset and size of each, below 2^63 as uint64; zeros for those
        without data.
    """
    if places.size and places[0].max() >= shards:
        at = int(np.argmax(places[0] >= shards))
        key, entry = list(entries.items())[at]
        raise Malformed(f"{text(key)!r} lies in data file {entry.shard} of {shards}")
    filled = np.flatnonzero(places[2])
    order = filled[np.lexsort(places[::-1, filled])]
    shard, offset, size = places[:, order]
    clash = (shard[1:] == shard[:-1]) & (offset[1:] < offset[:-1] + size[:-1])
    if clash.any():
        keys, at = list(entries), int(np.argmax(clash))
        before, after = keys[order[at]], keys[order[at + 1]]
        raise Malformed(f"the data of {text(before)!r} and {text(after)!r} overlap")
