"""Raw snappy, decompressed (google/snappy, format_description.txt).

Only old or foreign index files hold it; TensorFlow writes its index uncompressed.
"""

from monolith_jax.checkpoint.tf._wire import Malformed, read_varint

_MOST_GAIN = 22  # a copy of 64 bytes takes 3


def decompress(data: bytes) -> bytes:
    """Returns the bytes of a raw snappy block.

    Raises:
      Malformed: it is none; no more memory than 22 times its length is ever taken.

    Example:
      >>> decompress(bytes([12, 0 << 2 | 0]) + b"a" + bytes([10 << 2 | 2, 1, 0]))
      b'aaaaaaaaaaaa'
    """
    length, at = read_varint(data, 0)
    if length > _MOST_GAIN * len(data):
        raise Malformed(f"a compressed block of {len(data)} bytes claims to hold {length}")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            at = _literal(data, at, tag >> 2, out)
        else:
            at = _copy(data, at, tag, out)
        if len(out) > length:
            break
    if len(out) != length:
        raise Malformed(f"a compressed block holds {len(out)} bytes, not {length}")
    return bytes(out)


def _literal(data: bytes, at: int, code: int, out: bytearray) -> int:
    if code < 60:
        count = code + 1
    else:
        width = code - 59
        if at + width > len(data):
            raise Malformed("a compressed block is cut off")
        count = int.from_bytes(data[at : at + width], "little") + 1
        at += width
    if count > len(data) - at:
        raise Malformed("a compressed block is cut off")
    out += data[at : at + count]
    return at + count


def _copy(data: bytes, at: int, tag: int, out: bytearray) -> int:
    kind = tag & 3
    width = (0, 1, 2, 4)[kind]
    if at + width > len(data):
        raise Malformed("a compressed block is cut off")
    back = int.from_bytes(data[at : at + width], "little")
    if kind == 1:
        count = (tag >> 2 & 7) + 4
        back |= tag >> 5 << 8
    else:
        count = (tag >> 2) + 1
    if not 0 < back <= len(out):
        raise Malformed("a compressed block copies from before its start")
    piece = bytes(out[-back:][:count])
    while len(piece) < count:  # it copies what it is writing
        piece += piece[: count - len(piece)]
    out += piece
    return at + width
