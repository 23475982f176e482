"""Protobuf's wire format: varints, and skipping a field that nobody asked for.

Positions are int64; a result of -1 for the next position means that the bytes are malformed.
"""

from monolith_jax.input._jit import Array, helper, inlined, load64, trailing_zeros

_STOP_BITS = -9187201950435737472  # 0x8080808080808080 as int64
_LOW_7 = 0x007F007F007F007F
_LOW_14 = 0x00003FFF00003FFF
_LOW_28 = 0x000000000FFFFFFF


@helper
def long_varint(buffer: Array, at: int, end: int) -> tuple[int, int]:
    """Reads a varint of up to ten bytes, bits above 64 dropped: (value, next) or (0, -1)."""
    value, shift = 0, 0
    while at < end and shift < 70:
        byte = int(buffer[at])
        if shift < 64:
            value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, -1


@inlined
def varint(buffer: Array, at: int, end: int) -> tuple[int, int]:
    """Reads a varint before `end`: (value as int64, next) or (0, -1)."""
    word = load64(buffer, at)
    if word & 0x80 == 0 and at < end:
        return word & 0x7F, at + 1
    stops = ~word & _STOP_BITS
    if stops == 0:
        return long_varint(buffer, at, end)
    # Keep the bytes up to the first without a continuation bit, then close the gaps of one bit.
    lowest = stops & -stops
    size = (trailing_zeros(lowest) >> 3) + 1
    if at + size > end:
        return 0, -1
    word &= lowest - 1
    word = (word & _LOW_7) | ((word >> 1) & (_LOW_7 << 7))
    word = (word & _LOW_14) | ((word >> 2) & (_LOW_14 << 14))
    word = (word & _LOW_28) | ((word >> 4) & (_LOW_28 << 28))
    return word, at + size


@helper
def span(buffer: Array, at: int, end: int) -> tuple[int, int]:
    """Reads a length and returns (first byte, byte after the last) of what follows, or (-1, -1)."""
    size, at = varint(buffer, at, end)
    if at < 0 or size < 0 or size > end - at:
        return -1, -1
    return at, at + size


@helper
def skip_field(buffer: Array, at: int, end: int) -> int:
    """Returns the position after the field that begins at `at`; groups are malformed."""
    tag, at = varint(buffer, at, end)
    if at < 0 or tag < 8 or tag > 0xFFFFFFFF:
        return -1
    wire = tag & 7
    if wire == 0:
        return long_varint(buffer, at, end)[1]
    if wire == 2:
        return span(buffer, at, end)[1]
    size = 8 if wire == 1 else 4
    if wire not in (1, 5) or end - at < size:
        return -1
    return at + size
