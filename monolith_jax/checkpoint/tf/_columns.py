"""The usual entries of an index decoded all at once: columns of numbers instead of a message each.

Nearly all entries are of one form: dtype, shape, then shard, offset, size (each left out if 0) and
the crc32c, in this order. numpy walks through all of them together, one field at a time; what has
another form is marked, and left to `_protos.decode_entry`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_PADDING = 32  # bytes after the block, so that no look ahead leaves it
_TAGS = (0x18, 0x20, 0x28)  # shard, offset, size
_FIXED = 0x35  # crc32c


class Columns(NamedTuple):
    """The numbers of entries, an array [entries] each.

    Attributes:
      usual: whether an entry is of the usual form; the rest of its numbers mean nothing if not.
      dtype: TensorFlow's number, int64.
      shape_end: where the bytes of its shape end in the block (they begin at its start + 4).
      places: shard, offset and size, uint64 below 2^63.
      crc: the masked crc32c, uint32.
    """

    usual: np.ndarray
    dtype: np.ndarray
    shape_end: np.ndarray
    places: tuple[np.ndarray, np.ndarray, np.ndarray]
    crc: np.ndarray


def decode_columns(block: bytes, starts: Sequence[int], ends: Sequence[int]) -> Columns:
    """Returns the entries whose messages lie at starts..ends of a block.

    Example:
      >>> message = bytes.fromhex("0801 1204 12020803 20ac02 280c 35 01000000")
      >>> found = decode_columns(message, [0], [len(message)])
      >>> [column.tolist() for column in (found.usual, found.dtype, *found.places, found.crc)]
      [[True], [1], [0], [300], [12], [1]]
    """
    data = np.frombuffer(block + bytes(_PADDING), np.uint8)
    at, end = np.array(starts, np.int64), np.array(ends, np.int64)
    dtype, length = data[at + 1].astype(np.int64), data[at + 3].astype(np.int64)
    usual = (data[at] == 0x08) & (data[at + 2] == 0x12) & (dtype < 128) & (length < 128)
    shape_end = at = at + 4 + length
    usual &= at <= end
    places = []
    for tag in _TAGS:
        at = np.minimum(at, end)
        there = (at < end) & (data[at] == tag)
        number, stop = _varints(data, at + 1, there)
        places.append(number)
        usual &= number < 1 << 63
        at = np.where(there, stop, at)
        usual &= at <= end
    at = np.minimum(at, end)
    there = (at + 5 == end) & (data[at] == _FIXED)
    usual &= there | (at == end)
    crc = sum(data[at + 1 + i].astype(np.uint32) << np.uint32(8 * i) for i in range(4))
    crc = np.where(there, crc, 0).astype(np.uint32)
    return Columns(usual, dtype, shape_end, (places[0], places[1], places[2]), crc)


def _varints(data: np.ndarray, at: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the varints at `at` where they are `there`, 0 elsewhere, and where they end.

    Those of more than nine bytes are 2^63, which no place in a file is.
    """
    value = np.zeros(len(at), np.uint64)
    stop = at.copy()
    more = there
    for i in range(9):
        if not more.any():
            break
        byte = data[at + i]
        value |= np.where(more, byte & 127, 0).astype(np.uint64) << np.uint64(7 * i)
        stop += more
        more = more & (byte > 127)
    return np.where(more, np.uint64(1 << 63), value), stop
