"""The two messages of the index (tensorflow/core/protobuf/tensor_bundle.proto), by hand.

BundleHeaderProto {1 num_shards, 2 endianness, 3 version {1 producer, 2 min_consumer}}
BundleEntryProto {1 dtype, 2 shape {2 dim {1 size}, 3 unknown_rank}, 3 shard_id, 4 offset, 5 size,
  6 fixed32 crc32c, 7 slices {1 extent {1 start, 2 length}}}
"""

from typing import NamedTuple

from monolith_jax.checkpoint.tf._wire import (
    BYTES,
    FIXED32,
    VARINT,
    Malformed,
    bytes_field,
    fields,
    fixed32_field,
    number_field,
    read_varint,
    signed,
    varint,
)

Extents = tuple[tuple[int, int], ...]  # (start, length) of each dimension; (0, -1) is all of it

_MOST_DIMENSIONS = 254  # TensorShape::MaxDimensions
_MOST_SHARDS = 99999  # five digits in a file's name


class Entry(NamedTuple):
    """What the index says of one tensor, or of one slice of a partitioned one.

    Attributes:
      dtype: TensorFlow's number.
      shape: the sizes.
      shard: the number of the data file.
      offset: the first byte in it.
      size: the bytes in it.
      crc: the masked crc32c of those bytes.
      slices: where the parts of a partitioned tensor lie; then it has no data of its own.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    slices: tuple[Extents, ...] = ()


def decode_header(data: bytes) -> int:
    """Returns the number of data files.

    Raises:
      Malformed: it is damaged, big endian, or needs a newer reader.
    """
    shards = endianness = min_consumer = 0
    for number, kind, value in fields(data):
        if number == 1:
            shards = _int(value, kind)
        elif number == 2:
            endianness = _int(value, kind)
        elif number == 3:
            version = {n: v for n, k, v in fields(_bytes(value, kind)) if k == VARINT}
            min_consumer = int(version.get(2, 0))
    if endianness:
        raise Malformed("it is big endian; only little endian checkpoints can be read")
    if min_consumer > 1:
        raise Malformed(f"it needs a reader of version {min_consumer}; this one is of version 1")
    if not 0 < shards <= _MOST_SHARDS:
        raise Malformed(f"it claims {shards} data files")
    return shards


def encode_header(shards: int) -> bytes:
    """Returns the header of a little endian bundle."""
    return number_field(1, shards) + bytes_field(3, number_field(1, 1))


def decode_entry(data: bytes, shapes: dict[bytes, tuple[int, ...]]) -> Entry:
    """Returns an entry; see `Entry`.

    Args:
      data: the message.
      shapes: a memory of the shapes that were decoded; many entries have the same.

    Raises:
      Malformed: it is damaged.
    """
    try:
        found = _decode_usual(data, shapes)
    except IndexError:  # cut off
        found = None
    return _decode_any(data) if found is None else found


def _decode_usual(data: bytes, shapes: dict[bytes, tuple[int, ...]]) -> Entry | None:
    """Decodes an entry of one whole tensor with its fields in order, None for any other.

    Several times faster than going through all that a message could be.
    """
    at, end = 2, len(data)
    dtype, length = data[1], data[3]
    if data[0] != 0x08 or data[2] != 0x12 or dtype > 127 or length > 127:
        return None
    at = 4 + length
    raw = data[4:at]
    shape = shapes.get(raw)
    if shape is None:
        shape = shapes[raw] = decode_shape(raw)
    numbers = [0, 0, 0]  # shard, offset, size: the fields 3, 4 and 5
    for i, tag in enumerate((0x18, 0x20, 0x28)):
        if at < end and data[at] == tag:
            value, at = data[at + 1], at + 2
            if value > 127:
                value, at = read_varint(data, at - 1)
            numbers[i] = value
    crc = 0
    if at + 5 == end and data[at] == 0x35:
        crc = int.from_bytes(data[at + 1 :], "little")
    elif at != end:
        return None
    shard, offset, size = numbers
    return None if (shard | offset | size) >> 63 else Entry(dtype, shape, shard, offset, size, crc)


def _decode_any(data: bytes) -> Entry:
    numbers = [0] * 7
    shape: tuple[int, ...] = ()
    slices: list[Extents] = []
    for number, kind, value in fields(data):
        if number == 2:
            shape = decode_shape(_bytes(value, kind))
        elif number == 7:
            slices.append(_decode_slice(_bytes(value, kind)))
        elif number == 6:
            if kind != FIXED32:
                raise Malformed("a crc32c has the wrong wire type")
            numbers[6] = int(value)
        elif number in (1, 3, 4, 5):
            numbers[number] = signed(_int(value, kind))
    _, dtype, _, shard, offset, size, crc = numbers
    if min(dtype, shard, offset, size) < 0:
        raise Malformed("its place in the data is negative")
    return Entry(dtype, shape, shard, offset, size, crc, tuple(slices))


def decode_shape(data: bytes) -> tuple[int, ...]:
    """Returns the sizes of a TensorShapeProto."""
    shape = []
    for number, kind, value in fields(data):
        if number == 2:
            size = 0
            for inner, inner_kind, inner_value in fields(_bytes(value, kind)):
                if inner == 1:
                    size = signed(_int(inner_value, inner_kind))
            if size < 0:
                raise Malformed(f"its shape holds the size {size}")
            shape.append(size)
        elif number == 3 and value:
            raise Malformed("its rank is unknown")
        if len(shape) > _MOST_DIMENSIONS:
            raise Malformed(f"its shape has more than {_MOST_DIMENSIONS} dimensions")
    return tuple(shape)


def encode_entry(entry: Entry) -> bytes:
    """Returns the bytes of an entry, as TensorFlow writes them."""
    dims = b"".join(bytes_field(2, number_field(1, size)) for size in entry.shape)
    return b"".join(
        [
            number_field(1, entry.dtype),
            bytes_field(2, dims),
            number_field(3, entry.shard),
            number_field(4, entry.offset),
            number_field(5, entry.size),
            fixed32_field(6, entry.crc),
            *(bytes_field(7, _encode_slice(extents)) for extents in entry.slices),
        ]
    )


def _decode_slice(data: bytes) -> Extents:
    extents = []
    for number, kind, value in fields(data):
        if number != 1:
            continue
        start, length = 0, -1  # no length: all of the dimension
        for inner, inner_kind, inner_value in fields(_bytes(value, kind)):
            if inner == 1:
                start = signed(_int(inner_value, inner_kind))
            elif inner == 2:
                length = signed(_int(inner_value, inner_kind))
                if length < 0:
                    raise Malformed(f"a slice has the length {length}")
        extents.append((start, length))
        if len(extents) > _MOST_DIMENSIONS:
            raise Malformed(f"a slice has more than {_MOST_DIMENSIONS} dimensions")
    return tuple(extents)


def _encode_slice(extents: Extents) -> bytes:
    parts = []
    for start, length in extents:
        # `length` is in a oneof: it is written also when it is 0
        body = b"" if length < 0 else number_field(1, start) + varint(2 << 3) + varint(length)
        parts.append(bytes_field(1, body))
    return b"".join(parts)


def _int(value: int | bytes, kind: int) -> int:
    if kind != VARINT or isinstance(value, bytes):
        raise Malformed("a field that should be a number is none")
    return value


def _bytes(value: int | bytes, kind: int) -> bytes:
    if kind != BYTES or not isinstance(value, bytes):
        raise Malformed("a field that should be a message is none")
    return value
