"""One walk over the bytes of a TFRecord file: framing, checksums, and each record into a row.

A record is `length (8 bytes) | masked crc of it (4) | data | masked crc of data (4)`, little-endian
(TensorFlow: tsl/lib/io/record_writer.h); the data is a tf.Example.

A record is committed when all of it is read: a walk that stops in the middle, for lack of bytes or
of room, begins that record again.
"""

from monolith_jax.input import _layout as lay
from monolith_jax.input._columns import row_of, used_places
from monolith_jax.input._crc import masked_crc32c
from monolith_jax.input._example import example
from monolith_jax.input._jit import Array, helper, inlined, kernel, load32, load64


@inlined
def _header(buf: Array, have: int, check_crc: bool, state: Array) -> int:
    """Reads the header at state[POS] and sets NEED to the size of the data; returns a status.

    DONE only if all of the record is at hand.
    """
    pos = state[lay.POS]
    state[lay.NEED] = 12
    if have - pos < 12:
        return lay.NEED_BYTES
    size = load64(buf, pos)
    if size < 0 or (check_crc and masked_crc32c(buf, pos, pos + 8) != load32(buf, pos + 8)):
        return lay.BAD_HEADER
    state[lay.NEED] = size
    if size > have - pos - 16:
        return lay.NEED_BYTES
    return lay.DONE


@helper
def _settle(cols: Array, ints: Array, floats: Array, default_floats: Array, state: Array) -> int:
    """Fills in defaults, and finds what the schema does not allow; returns a status."""
    for column in range(cols.size // lay.FIELDS):
        row = row_of(column)
        state[lay.COLUMN] = column
        if cols[row + lay.STAMP] != state[lay.STAMPS] or cols[row + lay.FOUND] == lay.NOTHING:
            if cols[row + lay.HAS_DEFAULT] == 0:
                return lay.MISSING
            cols[row + lay.COUNT] = cols[row + lay.WIDTH]
            for i in range(cols[row + lay.COUNT]):
                place = cols[row + lay.BASE] + used_places(cols, row, state) + i
                if cols[row + lay.KIND] == lay.INT64:
                    ints[place] = cols[row + lay.DEFAULT]
                else:
                    floats[place] = default_floats[column]
        elif cols[row + lay.FOUND] != cols[row + lay.KIND]:
            state[lay.NEED] = cols[row + lay.FOUND]
            return lay.WRONG_KIND
        elif cols[row + lay.WIDTH] > 0 and cols[row + lay.COUNT] != cols[row + lay.WIDTH]:
            state[lay.NEED] = cols[row + lay.COUNT]
            return lay.WRONG_COUNT
    return lay.DONE


@helper
def _commit(cols: Array, offsets: Array, state: Array) -> int:
    """Moves on by one row, or returns GROW_VALUES with nothing moved."""
    first = state[lay.FIRST_RAGGED]
    for column in range(first, cols.size // lay.FIELDS):
        row = row_of(column)
        if cols[row + lay.COUNT] > cols[row + lay.ROOM] - cols[row + lay.USED]:
            state[lay.COLUMN] = column
            state[lay.NEED] = cols[row + lay.COUNT]
            return lay.GROW_VALUES
    for column in range(first, cols.size // lay.FIELDS):
        row = row_of(column)
        cols[row + lay.USED] += min(cols[row + lay.COUNT], cols[row + lay.MAX_LENGTH])
        offsets[(column - first) * state[lay.OFFSETS_STRIDE] + state[lay.ROWS] + 1] = cols[
            row + lay.USED
        ]
    state[lay.ROWS] += 1
    return lay.DONE


@helper
def _record(
    buf: Array,
    at: int,
    end: int,
    check_crc: bool,
    cols: Array,
    table: Array,
    keys: Array,
    ints: Array,
    floats: Array,
    offsets: Array,
    default_floats: Array,
    state: Array,
) -> int:
    """Reads the data of one record and commits it; returns a status."""
    if check_crc and masked_crc32c(buf, at, end) != load32(buf, end):
        return lay.BAD_CRC
    status = example(buf, at, end, cols, table, keys, ints, floats, state)
    if status == lay.DONE and (state[lay.FILLED] < cols.size // lay.FIELDS or state[lay.SUSPECT]):
        status = _settle(cols, ints, floats, default_floats, state)
    if status == lay.DONE:
        status = _commit(cols, offsets, state)
    return status


@kernel
def walk(
    buf: Array,
    have: int,
    check_crc: bool,
    skip_damaged: bool,
    cols: Array,
    table: Array,
    keys: Array,
    ints: Array,
    floats: Array,
    offsets: Array,
    default_floats: Array,
    state: Array,
) -> int:
    """Reads records from state[POS] on until something is in the way; returns a status.

    Args:
      buf: uint8, `have` bytes of data and at least SLACK bytes behind them.
      have: the number of bytes of data.
      check_crc: whether to compare the checksums.
      skip_damaged: whether to count records with BAD_CRC, MALFORMED or AMBIGUOUS data and go on.
      cols: the columns' fields, flat; see `_layout`.
      table: the hash table of keys.
      keys: uint8, the keys.
      ints: int64, the values of all int64 columns; a column's begin at its BASE.
      floats: float32, of all float32 columns.
      offsets: int64, of the columns of variable length, OFFSETS_STRIDE apart.
      default_floats: float32, by column.
      state: the walk's scalars; see `_layout`.
    """
    while True:
        status = _header(buf, have, check_crc, state)
        if status != lay.DONE:
            return status
        if state[lay.ROWS] >= state[lay.ROW_CAPACITY]:
            return lay.GROW_ROWS
        at = state[lay.POS] + 12
        end = at + state[lay.NEED]
        status = _record(
            buf,
            at,
            end,
            check_crc,
            cols,
            table,
            keys,
            ints,
            floats,
            offsets,
            default_floats,
            state,
        )
        if status != lay.DONE:
            if not skip_damaged or not (lay.BAD_CRC <= status <= lay.AMBIGUOUS):
                return status
            state[lay.DAMAGED] += 1
        state[lay.POS] = end + 4


@kernel
def frame(buf: Array, have: int, state: Array) -> int:
    """Counts records in state[ROWS] by their headers alone, as `walk` does; returns a status."""
    while True:
        status = _header(buf, have, True, state)
        if status != lay.DONE:
            return status
        state[lay.ROWS] += 1
        state[lay.POS] += state[lay.NEED] + 16
