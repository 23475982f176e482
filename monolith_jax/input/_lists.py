"""Reads the values of an Int64List or a FloatList (tensorflow/core/example/feature.proto).

    FloatList { repeated float value = 1 [packed = true]; }        Int64List likewise

Packed or not. Two packed runs in one list, or a run beside single values, TensorFlow's parser and
protobuf's read differently: AMBIGUOUS.
"""

from monolith_jax.input import _layout as lay
from monolith_jax.input._columns import PLACES, note, used_places
from monolith_jax.input._jit import Array, helper, inlined, load_float
from monolith_jax.input._wire import skip_field, span, varint


@inlined
def _packed_ints(buf: Array, at: int, end: int, ints: Array, start: int, room: int) -> int:
    """Reads varints up to `end`, storing at most `room`: (number of values, or -1)."""
    # Most lists hold one value: without a loop it stays in registers.
    value, after = varint(buf, at, end)
    if after == end and room > 0:
        ints[start & PLACES] = value
        return 1
    count = 0
    while at < end:
        value, at = varint(buf, at, end)
        if at < 0:
            return -1
        if count < room:
            ints[(start + count) & PLACES] = value
        count += 1
    return count


@inlined
def _packed_floats(buf: Array, at: int, end: int, floats: Array, start: int, room: int) -> int:
    """Reads floats up to `end`, storing at most `room`: (number of values, or -1)."""
    if end - at == 4 and room > 0:
        floats[start & PLACES] = load_float(buf, at)
        return 1
    if (end - at) & 3:
        return -1
    count = (end - at) >> 2
    for i in range(min(count, room)):
        floats[(start + i) & PLACES] = load_float(buf, at + 4 * i)
    return count


@inlined
def packed(
    buf: Array, at: int, end: int, kind: int, ints: Array, floats: Array, start: int, room: int
) -> int:
    """Reads a packed run up to `end`, storing at most `room`: (number of values, or -1)."""
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
            ints[place & PLACES] = value
        return at
    if end - at < 4:
        return -1
    if room > 0:
        floats[place & PLACES] = load_float(buf, at)
    return at + 4


@helper
def read_list(
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
                count = packed(buf, first, at, kind, ints, floats, start, room)
        elif tag == single_tag:
            at = _single(buf, at + 1, end, kind, ints, floats, start + count, room - count)
            count += 1
        else:
            at = skip_field(buf, at, end)
        if at < 0 or count < 0:
            return lay.MALFORMED
    note(cols, row, kind, count, state)
    return lay.DONE
