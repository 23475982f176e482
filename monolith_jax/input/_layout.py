"""The arrays that the walk works on: where their fields lie, and how a schema fills them.

Everything is int64, so that no kernel ever mixes signed and unsigned (numba makes that a float).
"""

import functools
from dataclasses import dataclass

import numpy as np

from monolith_jax.input.schema import Column, Schema

# Kinds, as tf.Feature numbers its lists.
NOTHING, BYTES, FLOAT, INT64 = 0, 1, 2, 3

# Fields of `cols`, int64 [columns, FIELDS]; the first eight are one cache line that a match reads.
KEY_SIZE, KEY_HEAD, KEY_TAIL, KEY_AT, NEXT, KIND, BASE, ROOM = range(8)
USED, COUNT, FOUND, STAMP, WIDTH, MAX_LENGTH, HAS_DEFAULT, DEFAULT = range(8, 16)
FOLLOWER, FIELDS = 16, 24

# Fields of `state`, int64 [16].
POS, ROWS, ROW_CAPACITY, DAMAGED, STAMPS, FILLED, SUSPECT = range(7)
WHERE, COLUMN, NEED, MULTIPLIER, FIRST_RAGGED, OFFSETS_STRIDE, LAST = range(7, 14)

# What the walk returns; WHERE is the byte at fault, COLUMN the column, NEED the number wanted.
DONE, NEED_BYTES, GROW_ROWS, GROW_VALUES = 0, 1, 2, 3
BAD_HEADER, BAD_CRC, MALFORMED, AMBIGUOUS = 4, 5, 6, 7
MISSING, WRONG_KIND, WRONG_COUNT = 8, 9, 10

TABLE_BITS_MIN = 4


@dataclass(frozen=True)
class Layout:
    """A schema in the walk's terms, fixed lengths first.

    Attributes:
      columns: the schema's columns in the order of `cols`.
      first_ragged: index of the first column of variable length.
      cols: [columns, FIELDS], the constant fields filled in.
      table: [2^k], hash of a key -> its first column (then along NEXT), or -1.
      keys: uint8, the keys one after the other; a column's begins at KEY_AT.
      multiplier: the hash function's.
    """

    columns: tuple[Column, ...]
    first_ragged: int
    cols: np.ndarray
    table: np.ndarray
    keys: np.ndarray
    multiplier: int


@functools.lru_cache(maxsize=32)
def lay_out(schema: Schema) -> Layout:
    """Returns the layout of `schema`, whose names are unique; shared, so not to be changed."""
    columns = tuple(sorted(schema, key=lambda column: column.is_ragged))
    cols = np.zeros((len(columns), FIELDS), np.int64)
    keys, at = [column.name.encode() for column in columns], 0
    for row, column, key in zip(cols, columns, keys, strict=True):
        row[KEY_SIZE], row[KEY_AT], row[NEXT] = len(key), at, -1
        row[KEY_HEAD], row[KEY_TAIL] = _key_words(key)
        row[KIND] = INT64 if column.dtype == "int64" else FLOAT
        row[WIDTH] = column.length or 0
        row[MAX_LENGTH] = column.max_length or np.iinfo(np.int64).max
        row[HAS_DEFAULT] = column.default is not None
        row[DEFAULT] = _default_bits(column)
        at += len(key)
    multiplier, table = _hash_table(cols)
    flat = np.frombuffer(b"".join(keys) + b"\0", np.uint8).copy()
    first_ragged = sum(not column.is_ragged for column in columns)
    return Layout(columns, first_ragged, cols, table, flat, multiplier)


def _key_words(key: bytes) -> tuple[int, int]:
    """The first eight bytes (zeros where the key is shorter), and the last eight (or zero)."""
    head = int.from_bytes(key[:8].ljust(8, b"\0"), "little", signed=True)
    tail = int.from_bytes(key[-8:], "little", signed=True) if len(key) >= 8 else 0
    return head, tail


def _default_bits(column: Column) -> int:
    if column.default is None or column.default == ():
        return 0
    if column.dtype == "int64":
        return int(column.default)  # type: ignore[arg-type]
    return int(np.float32(column.default).view(np.int32))  # type: ignore[arg-type]


def _hash_table(cols: np.ndarray) -> tuple[int, np.ndarray]:
    """Finds a multiplier without collisions (or with few: the table chains them)."""
    bits = max(TABLE_BITS_MIN, int(4 * len(cols)).bit_length())
    rng, best = np.random.Generator(np.random.PCG64(0)), (len(cols) + 1, 1, np.zeros(0, np.int64))
    for _ in range(64):
        multiplier = int(rng.integers(-(2**62), 2**62)) * 2 + 1
        slots = hash_keys(cols[:, KEY_SIZE], cols[:, KEY_HEAD], cols[:, KEY_TAIL], multiplier, bits)
        collisions = len(cols) - len(np.unique(slots))
        if collisions < best[0]:
            best = (collisions, multiplier, slots)
        if collisions == 0:
            break
    table = np.full(1 << bits, -1, np.int64)
    for column, slot in enumerate(best[2]):
        cols[column, NEXT] = table[slot]
        table[slot] = column
    return best[1], table


def hash_keys(
    size: np.ndarray, head: np.ndarray, tail: np.ndarray, multiplier: int, bits: int
) -> np.ndarray:
    """Returns the table slots of keys: what `_columns._look_up` computes, int64, wrapping."""
    mixed = (head ^ (tail * np.int64(31)) ^ size) * np.int64(multiplier)
    return (mixed >> np.int64(40)) & np.int64((1 << bits) - 1)
