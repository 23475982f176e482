"""OrderedCode: numbers and strings whose encodings sort as they do; the keys of slices.

A slice of a partitioned variable is stored under Num 0, String name, Num rank, then SignedNum
start and SignedNum length of each dimension; 0 and -1 stand for the whole of it
(tensorflow/core/lib/strings/ordered_code.cc, util/saved_tensor_slice_util.cc).
"""

import re
from collections.abc import Iterable

_HEADERS = (0, 0x8000, 0xC000, 0xE000, 0xF000, 0xF800, 0xFC00, 0xFE00, 0xFF00, 0xFF80, 0xFFC0)

_SPECIAL = re.compile(rb"[\x00\xff]")


def number(value: int) -> bytes:
    """Encodes a number from 0: its count of bytes, then they, most significant first.

    Example:
      >>> number(0).hex(), number(258).hex()
      ('00', '020102')
    """
    body = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(body)]) + body


def string(value: bytes) -> bytes:
    r"""Encodes bytes: 00 and ff escaped, 00 01 at the end.

    Example:
      >>> string(b"a\x00").hex()
      '6100ff0001'
    """
    return _SPECIAL.sub(
        lambda found: b"\x00\xff" if found[0] == b"\x00" else b"\xff\x00", value
    ) + (b"\x00\x01")


def signed_number(value: int) -> bytes:
    """Encodes an int64: a header of as many ones as there are bytes, xor the number.

    Example:
      >>> [signed_number(v).hex() for v in (0, -1, 63, 64, -65)]
      ['80', '7f', 'bf', 'c040', '3fbf']
    """
    size = (~value if value < 0 else value).bit_length() // 7 + 1
    body = bytearray((value & ((1 << 80) - 1)).to_bytes(10, "big")[10 - size :])
    body[0] ^= _HEADERS[size] >> 8
    if size > 1:
        body[1] ^= _HEADERS[size] & 0xFF
    return bytes(body)


def slice_key(name: bytes, extents: Iterable[tuple[int, int]]) -> bytes:
    """Returns the key of a slice from (start, length) of each dimension.

    Example:
      >>> slice_key(b"v", [(0, 2), (0, -1)]).hex()
      '0076000101028082807f'
    """
    extents = list(extents)
    parts = [number(0), string(name), number(len(extents))]
    for start, length in extents:
        parts += [signed_number(start), signed_number(length)]
    return b"".join(parts)
