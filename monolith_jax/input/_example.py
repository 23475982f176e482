"""Reads one tf.Example into the columns' next row.

The message (tensorflow/core/example/example.proto, feature.proto):

    Example  { Features features = 1; }
    Features { map<string, Feature> feature = 1; }
    Feature  { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2;
                            Int64List int64_list = 3; } }

Meaning is protobuf's: fields in any order, unknown ones skipped, the last entry of a key counts.
Where TensorFlow's parser and protobuf's give one record two meanings (two lists in one feature,
two values in one map entry, and see `_lists`), it is AMBIGUOUS.
"""

from monolith_jax.input import _layout as lay
from monolith_jax.input._columns import find, note, used_places
from monolith_jax.input._jit import Array, helper, inlined, load64
from monolith_jax.input._lists import packed, read_list
from monolith_jax.input._wire import skip_field, span


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
        return read_list(buf, first, last, kind, cols, row, ints, floats, state)
    # Another kind is an error only if no later entry of the key replaces this one.
    note(cols, row, kind, 0, state)
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
    row = find(buf, key, key_end - key, cols, table, keys, state)
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
    """`_plain_entry` of one that ends `12 02 (12 or 1A) 00`: a list of no values."""
    if head & 0xFFF7FFFF != 0x00120212:
        return -1
    row = find(buf, at + 4, key_size, cols, table, keys, state)
    if row >= 0:
        kind = (head >> 19) & 3
        if kind != cols[row + lay.KIND]:
            return -1
        note(cols, row, kind, 0, state)
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
    row = find(buf, at + 4, key_size, cols, table, keys, state)
    if row < 0:
        return stop
    kind = (head >> 19) & 3
    if kind != cols[row + lay.KIND]:
        return -1
    used = used_places(cols, row, state)
    start, room = cols[row + lay.BASE] + used, cols[row + lay.ROOM] - used
    count = packed(buf, value + 6, stop, kind, ints, floats, start, room)
    if count < 0:
        return -1
    note(cols, row, kind, count, state)
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
