"""The index of a bundle: its header and entries, checked against each other."""

from typing import NamedTuple

from monolith_jax import storage
from monolith_jax.checkpoint.tf._errors import blame, no_bundle
from monolith_jax.checkpoint.tf._protos import Entry, decode_entry, decode_header
from monolith_jax.checkpoint.tf._table import read_table
from monolith_jax.checkpoint.tf._wire import Malformed

SLICE_KEY = b"\x00"  # how the keys of slices begin


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
    table = read_table(data)
    if not table or table[0][0] != b"":
        raise Malformed("it has no header (cut off, or not a V2 checkpoint's index)")
    shards = decode_header(table[0][1])
    entries = {}
    shapes: dict[bytes, tuple[int, ...]] = {}
    for key, value in table[1:]:
        try:
            entries[key] = decode_entry(value, shapes)
        except Malformed as error:
            raise Malformed(f"the entry of {text(key)!r}: {error}") from None
    _check_places(shards, entries)
    return IndexFile(shards, entries)


def text(key: bytes) -> str:
    """Returns a key as a name; bytes that are not UTF-8 survive the way there and back."""
    return key.decode("utf-8", "surrogateescape")


def _check_places(shards: int, entries: dict[bytes, Entry]) -> None:
    """Checks that each entry lies in a data file of its own bytes."""
    places = [(e[2], e[3], e[4], key) for key, e in entries.items() if not e[6] and e[4]]
    places.sort()
    last, end, before = -1, 0, b""
    for shard, offset, size, key in places:
        if shard != last:
            last, end = shard, 0
        if offset < end:
            raise Malformed(f"the data of {text(before)!r} and {text(key)!r} overlap")
        end, before = offset + size, key
    for key, entry in entries.items():
        if not entry[6] and entry[2] >= shards:
            raise Malformed(f"{text(key)!r} lies in data file {entry[2]} of {shards}")
