"""crc32c as TensorFlow stores it, and the crc of a whole from the crcs of its parts.

The mask (tsl/lib/hash/crc32c.h, `Mask`) keeps the checksum of bytes that hold a checksum apart
from trouble: `((c >> 15) | (c << 17)) + 0xA282EAD8` modulo 2^32.

A crc is linear over GF(2): appending n bytes multiplies the polynomial before them by x^(8n). So
crc(a + b) = crc(a) * x^(8 len(b)) + crc(b), modulo the polynomial; the inversions of crc32c cancel.
"""

from collections.abc import Iterable
from functools import lru_cache

from crc32c import crc32c

__all__ = ["combine", "combine_spans", "crc32c", "mask", "unmask"]

_POLYNOMIAL = 0x82F63B78
_ONES = 0xFFFFFFFF
_DELTA = 0xA282EAD8
_ONE = 1 << 31  # the polynomial 1: bit 31 is x^0 in the reflected form


def mask(crc: int) -> int:
    """Returns a crc as TensorFlow stores it.

    Example:
      >>> unmask(mask(0x12345678)) == 0x12345678
      True
    """
    return (((crc >> 15) | (crc << 17)) + _DELTA) & _ONES


def unmask(stored: int) -> int:
    """Returns the crc of a stored, masked one."""
    rotated = (stored - _DELTA) & _ONES
    return ((rotated >> 17) | (rotated << 15)) & _ONES


def _multiply(a: int, b: int) -> int:
    """Returns a * b modulo the polynomial, both reflected."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@lru_cache(maxsize=1024)
def _power(length: int) -> int:
    """Returns x^(8 length) modulo the polynomial."""
    result, square = _ONE, 1 << 23  # x^8
    while length:
        if length & 1:
            result = _multiply(result, square)
        square = _multiply(square, square)
        length >>= 1
    return result


def combine(first: int, second: int, length: int) -> int:
    """Returns the crc of a + b from crc(a), crc(b) and len(b).

    Example:
      >>> combine(crc32c(b"1234"), crc32c(b"56789"), 5) == crc32c(b"123456789")
      True
    """
    return _multiply(_power(length), first) ^ second


def combine_spans(spans: Iterable[tuple[int, int, int]], size: int) -> int | None:
    """Returns the crc of bytes 0..size from the crcs of spans, None if they do not make it up.

    Args:
      spans: (start, length, crc) in any order; they may overlap.
      size: the bytes of the whole.

    Example:
      >>> spans = [(4, 5, crc32c(b"56789")), (0, 4, crc32c(b"1234")), (2, 3, 0)]
      >>> combine_spans(spans, 9) == crc32c(b"123456789")
      True
      >>> combine_spans(spans[1:], 9) is None
      True
    """
    reached = {0: 0}  # how far the chains of spans come, and the crc up to there
    for start, length, crc in sorted(set(spans)):
        if start in reached and length:
            reached.setdefault(start + length, combine(reached[start], crc, length))
    return reached.get(size)
