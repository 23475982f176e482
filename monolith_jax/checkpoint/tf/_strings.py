"""String tensors: varint lengths, the masked crc32c of the lengths, then the bytes.

The checksums take each length as four bytes, little endian, or eight from 4 GiB on; that of the
whole entry covers the lengths so taken, the stored crc of them, and the bytes
(tensorflow/core/util/tensor_bundle/tensor_bundle.cc, WriteStringTensor).
"""

import struct
from collections.abc import Sequence

from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._wire import Malformed, read_varint, varint


def encode(values: Sequence[bytes]) -> tuple[bytes, int]:
    """Returns the stored bytes of a string tensor and their masked crc32c.

    Example:
      >>> encode([b"ab"])[0].hex()
      '02d8d810736162'
    """
    crc = crc32c(_lengths([len(value) for value in values]))
    stored = struct.pack("<I", mask(crc))
    body = b"".join(values)
    crc = crc32c(body, crc32c(stored, crc))
    return b"".join(varint(len(value)) for value in values) + stored + body, mask(crc)


def decode(data: bytes, count: int, crc: int | None) -> list[bytes]:
    """Returns the values of a string tensor.

    Args:
      data: the stored bytes.
      count: how many values there are.
      crc: the masked crc32c of the entry, None to check nothing.

    Raises:
      Malformed: they are damaged, or not `count` values.
    """
    if count > len(data):
        raise Malformed(f"{len(data)} bytes cannot hold {count} strings")
    lengths, at = [], 0
    for _ in range(count):
        length, at = read_varint(data, at)
        lengths.append(length)
    if at + 4 + sum(lengths) != len(data):
        raise Malformed(f"its {count} strings do not take up its {len(data)} bytes")
    lengths_crc = crc32c(_lengths(lengths))
    if struct.unpack_from("<I", data, at)[0] != mask(lengths_crc):
        raise Malformed("its lengths are damaged: their crc32c does not match")
    if crc is not None and mask(crc32c(data[at:], lengths_crc)) != crc:
        raise Malformed("its data is damaged: the crc32c does not match")
    values, at = [], at + 4
    for length in lengths:
        values.append(data[at : at + length])
        at += length
    return values


def _lengths(lengths: Sequence[int]) -> bytes:
    return b"".join(struct.pack("<I" if n < 1 << 32 else "<Q", n) for n in lengths)
