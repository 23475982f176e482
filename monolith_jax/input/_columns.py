"""The columns while a record is read: which one a key is, where its values go, what it has so far.

A helper's `row` is where a column's fields begin in `cols`: no kernel slices an array, since every
view of one is counted, atomically, and that took four fifths of the time.
"""

from monolith_jax.input import _layout as lay
from monolith_jax.input._jit import Array, helper, inlined, load64

PLACES = (1 << 62) - 1  # of values; see `row_of`


@inlined
def row_of(column: int) -> int:
    """Returns where the fields of `column`, not negative, begin in `cols`.

    The mask says so to the compiler, which then leaves out what numba does at every index for the
    sake of negative ones.
    """
    return (column * lay.FIELDS) & 0xFFFFFFFF


@inlined
def find(
    buf: Array, key: int, size: int, cols: Array, table: Array, keys: Array, state: Array
) -> int:
    """Returns the row of the column whose name is the `size` bytes at `key`, or -1."""
    head = load64(buf, key)
    tail = 0
    if size >= 8:
        tail = load64(buf, key + size - 8)
    else:
        head &= (1 << (8 * size)) - 1
    # Records of one file have their keys in one order, mostly: try what came next last time. Up to
    # 16 bytes, head and tail are all of the key.
    last = state[lay.LAST] & PLACES
    row = cols[last + lay.FOLLOWER] & PLACES
    if (
        cols[row + lay.KEY_HEAD] != head
        or cols[row + lay.KEY_TAIL] != tail
        or cols[row + lay.KEY_SIZE] != size
        or size > 16
    ):
        row = _look_up(buf, key, size, head, tail, cols, table, keys, state)
        if row < 0:
            return -1
        cols[last + lay.FOLLOWER] = row
    state[lay.LAST] = row
    return row


@helper
def _look_up(
    buf: Array,
    key: int,
    size: int,
    head: int,
    tail: int,
    cols: Array,
    table: Array,
    keys: Array,
    state: Array,
) -> int:
    """The same by the hash table."""
    slot = ((head ^ (tail * 31) ^ size) * state[lay.MULTIPLIER] >> 40) & (table.size - 1)
    column = table[slot]
    while column >= 0:
        row = row_of(column)
        if (
            cols[row + lay.KEY_HEAD] == head
            and cols[row + lay.KEY_TAIL] == tail
            and cols[row + lay.KEY_SIZE] == size
        ):
            same = 8
            while same < size - 8 and buf[key + same] == keys[cols[row + lay.KEY_AT] + same]:
                same += 1
            if same >= size - 8:
                return row
        column = cols[row + lay.NEXT]
    return -1


@inlined
def used_places(cols: Array, row: int, state: Array) -> int:
    """The places that the rows so far take: USED of variable lengths, a multiple of fixed ones."""
    return cols[row + lay.USED] + cols[row + lay.WIDTH] * state[lay.ROWS]


@inlined
def note(cols: Array, row: int, kind: int, count: int, state: Array) -> None:
    """Notes that this record has `count` values of `kind` for the column of `row`."""
    cols[row + lay.FOUND] = kind
    cols[row + lay.COUNT] = count
    if cols[row + lay.STAMP] != state[lay.STAMPS]:
        cols[row + lay.STAMP] = state[lay.STAMPS]
        state[lay.FILLED] += 1
    if kind != cols[row + lay.KIND] or (
        count != cols[row + lay.WIDTH] and cols[row + lay.WIDTH] > 0
    ):
        state[lay.SUSPECT] = 1
