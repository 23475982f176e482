"""Varints and protocol-buffer fields, read with bounds and written in their shortest form."""

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MOST = (1 << 64) - 1


class Malformed(Exception):
    """Bytes that are not what the format says; the caller adds the file and the key."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the unsigned varint at `at`, below 2^64, and where it ends.

    Example:
      >>> read_varint(bytes([0xAC, 0x02]), 0)
      (300, 2)
    """
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise Malformed("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value > _MOST:
                break
            return value, at
        shift += 7
    raise Malformed("a number takes more than 64 bits")


def varint(value: int) -> bytes:
    """Returns an unsigned varint; negative numbers as their two's complement in 64 bits.

    Example:
      >>> varint(300).hex()
      'ac02'
    """
    value &= _MOST
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> int:
    """Returns the int64 that an unsigned varint of 64 bits stands for.

    Example:
      >>> signed((1 << 64) - 1)
      -1
    """
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yields (number, wire type, value) of a message; groups are malformed.

    Example:
      >>> list(fields(bytes([8, 1, 18, 1, 65])))
      [(1, 0, 1), (2, 2, b'A')]
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise Malformed("a field has the number 0")
        if kind == VARINT:
            value, at = read_varint(data, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            length, at = read_varint(data, at)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise Malformed(f"a field has the wire type {kind}")
        if length > end - at:
            raise Malformed("a field is cut off")
        chunk = bytes(data[at : at + length])
        at += length
        yield number, kind, chunk if kind == BYTES else int.from_bytes(chunk, "little")


def number_field(number: int, value: int) -> bytes:
    """Returns a varint field, nothing for 0 as proto3 has it."""
    return varint(number << 3) + varint(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """Returns a field of bytes or of a message, also an empty one."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def fixed32_field(number: int, value: int) -> bytes:
    """Returns a fixed32 field, nothing for 0."""
    return varint(number << 3 | FIXED32) + struct.pack("<I", value) if value else b""
