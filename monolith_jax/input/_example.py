"""Reads one tf.Example into the columns' next row.

The message (tensorflow/core/example/example.proto, feature.proto):

    Example  { Features features = 1; }
    Features { map<string, Feature> feature = 1; }
    Feature  { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2;
                            Int64List int64_list = 3; } }
    FloatList { repeated float value = 1 [packed = true]; } and so the others

Meaning is protobuf's: fields in any order, unknown ones skipped, the last entry of a key counts,
lists packed or not. Where TensorFlow's parser and protobuf's give one record two meanings (two
lists in one feature, two packed runs in one list, two values in one map entry), it is AMBIGUOUS.

A helper's `row` is where a column's fields begin in `cols`: no kernel slices an array, since every
view of one is counted, atomically, and that took four fifths of the time.
"""

from monolith_jax.input import _layout as lay
from monolith_jax.input._jit import Array, helper, inlined, load64, load_float
from monolith_jax.input._wire import skip_field, span, varint

_PLACES = (1 << 62) - 1  # of values; see `row_of`


@inlined
def row_of(column: int) -> int:
    """Returns where the fields of `column`, not negative, begin in `cols`.

    The mask says so to the compiler, which then leaves out what numba does at every index for the
    sake of negative ones.
    """
    return (column * lay.FIELDS) & 0xFFFFFFFF


@inlined
def _find(
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
    last = state[lay.LAST] & _PLACES
    row = cols[last + lay.FOLLOWER] & _PLACES
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
def _note(cols: Array, row: int, kind: int, count: int, state: Array) -> None:
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


@inlined
def _packed_ints(buf: Array, at: int, end: int, ints: Array, start: int, room: int) -> int:
    """Reads varints up to `end`, storing at most `room`: (number of values, or -1)."""
    # Most lists hold one value: without a loop it stays in registers.
    value, after = varint(buf, at, end)
    if after == end and room > 0:
        ints[start & _PLACES] = value
        return 1
    count = 0
    while at < end:
        value, at = varint(buf, at, end)
        if at < 0:
            return -1
        if count < room:
            ints[(start + count) & _PLACES] = value
        count += 1
    return count


@inlined
def _packed_floats(buf: Array, at: int, end: int, floats: Array, start: int, room: int) -> int:
    """Reads floats up to `end`, storing at most `room`: (number of values, or -1)."""
    if end - at == 4 and room > 0:
        floats[start & _PLACES] = load_float(buf, at)
        return 1
    if (end - at) & 3:
        return -1
    count = (end - at) >> 2
    for i in range(min(count, room)):
        floats[(start + i) & _PLACES] = load_float(buf, at + 4 * i)
    return count


@inlined
def _packed(
    buf: Array, at: int, end: int, kind: int, ints: Array, floats: Array, start: int, room: int
) -> int:
    if kind == lay.INT64:
        return _packed_ints(buf, at, end, ints, start, room)
    return _packed_floats(buf, at, end, floats, start, room)


@helper
def _single(
    buf: Array, at: int, end: int, kind: int, ints: Array, floats: Array, place: int, room: int
) -> int:
    """Reads one value that stands alone behind its tag; returns the next position or -1."""
    if kind == lay.INT64:
        value, at = varint(buf, at, end)
        if at >= 0 and room > 0:
            ints[place & _PLACES] = value
        return at
    if end - at < 4:
        return -1
    if room > 0:
        floats[place & _PLACES] = load_float(buf, at)
    return at + 4


@helper
def _list(
    buf: Array,
    at: int,
    end: int,
    kind: int,
    cols: Array,
    row: int,
    ints: Array,
    floats: Array,
    state: Array,
) -> int:
    """Reads an Int64List or FloatList of any form into the column's place; returns a status."""
    used = used_places(cols, row, state)
    start, room = cols[row + lay.BASE] + used, cols[row + lay.ROOM] - used
    single_tag = 0x08 if kind == lay.INT64 else 0x0D
    count, runs = 0, 0
    while at < end:
        tag = buf[at]
        if runs > 0 and (tag == 0x0A or tag == single_tag):
            return lay.AMBIGUOUS
        if tag == 0x0A:
            if count > 0:
                return lay.AMBIGUOUS
            runs = 1
            first, at = span(buf, at + 1, end)
            if at >= 0:
                count = _packed(buf, first, at, kind, ints, floats, start, room)
        elif tag == single_tag:
            at = _single(buf, at + 1, end, kind, ints, floats, start + count, room - count)
            count += 1
        else:
            at = skip_field(buf, at, end)
        if at < 0 or count < 0:
            return lay.MALFORMED
    _note(cols, row, kind, count, state)
    return lay.DONE


@helper
def _feature(
    buf: Array, at: int, end: int, cols: Array, row: int, ints: Array, floats: Array, state: Array
) -> int:
    """Reads a Feature of any form into the column's place; returns a status."""
    kind, first, last = lay.NOTHING, at, at
    while at < end:
        tag = buf[at]
        if tag == 0x0A or tag == 0x12 or tag == 0x1A:
            if kind != lay.NOTHING:
                return lay.AMBIGUOUS
            kind = tag >> 3
            first, last = span(buf, at + 1, end)
            at = last
        else:
            at = skip_field(buf, at, end)
        if at < 0:
            return lay.MALFORMED
    if kind == cols[row + lay.KIND]:
        return _list(buf, first, last, kind, cols, row, ints, floats, state)
    # Another kind is an error only if no later entry of the key replaces this one.
    _note(cols, row, kind, 0, state)
    return lay.DONE


@helper
def _entry(
    buf: Array,
    at: int,
    end: int,
    cols: Array,
    table: Array,
    keys: Array,
    ints: Array,
    floats: Array,
    state: Array,
) -> int:
    """Reads a map entry of any form; returns a status."""
    key, key_end, value, value_end, values = at, at, at, at, 0
    while at < end:
        tag = buf[at]
        if tag == 0x0A:
            key, key_end = span(buf, at + 1, end)
            at = key_end
        elif tag == 0x12:
            value, value_end = span(buf, at + 1, end)
            at = value_end
            values += 1
        else:
            at = skip_field(buf, at, end)
        if at < 0:
            return lay.MALFORMED
    row = _find(buf, key, key_end - key, cols, table, keys, state)
    if row < 0:
        return lay.DONE
    if values > 1:
        return lay.AMBIGUOUS
    return _feature(buf, value, value_end, cols, row, ints, floats, state)


@inlined
def _plain_empty(
    buf: Array,
    at: int,
    stop: int,
    head: int,
    key_size: int,
    cols: Array,
    table: Array,
    keys: Array,
    state: Array,
) -> int:
    """The same of an entry that ends `12 02 (12 or 1A) 00`: a list of no values."""
    if head & 0xFFF7FFFF != 0x00120212:
        return -1
    row = _find(buf, at + 4, key_size, cols, table, keys, state)
    if row >= 0:
        kind = (head >> 19) & 3
        if kind != cols[row + lay.KIND]:
            return -1
        _note(cols, row, kind, 0, state)
    return stop


@inlined
def _plain_entry(
    buf: Array,
    at: int,
    end: int,
    cols: Array,
    table: Array,
    keys: Array,
    ints: Array,
    floats: Array,
    state: Array,
) -> int:
    """Reads a map entry of the form that writers write, or returns -1 having done nothing.

    The form: `0A size 0A size KEY 12 size (12 or 1A) size 0A size VALUES`, every size one byte, and
    each part ending where the one around it ends. Returns the position after the entry.
    """
    head = load64(buf, at)
    if head & 0x80FF80FF != 0x000A000A:
        return -1
    stop = at + 2 + ((head >> 8) & 0xFF)
    key_size = (head >> 24) & 0xFF
    value = at + 4 + key_size
    if stop > end or value + 4 > stop:
        return -1
    head = load64(buf, value)
    if value + 4 == stop:
        return _plain_empty(buf, at, stop, head, key_size, cols, table, keys, state)
    # The header of six bytes, if the size of the values is right: `size` and what follows from it.
    size = stop - value - 6
    if size < 0 or size > 123:
        return -1
    if head & 0xFFFFFFF7FFFF != 0x000A02120412 + size * 0x010001000100:
        return -1
    row = _find(buf, at + 4, key_size, cols, table, keys, state)
    if row < 0:
        return stop
    kind = (head >> 19) & 3
    if kind != cols[row + lay.KIND]:
        return -1
    used = used_places(cols, row, state)
    start, room = cols[row + lay.BASE] + used, cols[row + lay.ROOM] - used
    count = _packed(buf, value + 6, stop, kind, ints, floats, start, room)
    if count < 0:
        return -1
    _note(cols, row, kind, count, state)
    return stop


@helper
def _features(
    buf: Array,
    at: int,
    end: int,
    cols: Array,
    table: Array,
    keys: Array,
    ints: Array,
    floats: Array,
    state: Array,
) -> int:
    """Reads a Features message; returns a status, WHERE set if it is not DONE."""
    while at < end:
        state[lay.WHERE] = at
        plain = _plain_entry(buf, at, end, cols, table, keys, ints, floats, state)
        if plain >= 0:
            at = plain
        elif buf[at] == 0x0A:
            first, at = span(buf, at + 1, end)
            if at < 0:
                return lay.MALFORMED
            status = _entry(buf, first, at, cols, table, keys, ints, floats, state)
            if status != lay.DONE:
                return status
        else:
            at = skip_field(buf, at, end)
            if at < 0:
                return lay.MALFORMED
    return lay.DONE


@helper
def example(
    buf: Array,
    at: int,
    end: int,
    cols: Array,
    table: Array,
    keys: Array,
    ints: Array,
    floats: Array,
    state: Array,
) -> int:
    """Reads an Example; returns a status, WHERE set if it is not DONE."""
    state[lay.STAMPS] += 1
    state[lay.FILLED] = 0
    state[lay.SUSPECT] = 0
    while at < end:
        state[lay.WHERE] = at
        if buf[at] == 0x0A:
            first, at = span(buf, at + 1, end)
            if at < 0:
                return lay.MALFORMED
            status = _features(buf, first, at, cols, table, keys, ints, floats, state)
            if status != lay.DONE:
                return status
        else:
            at = skip_field(buf, at, end)
            if at < 0:
                return lay.MALFORMED
    return lay.DONE
