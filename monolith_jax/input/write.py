"""tf.Example and TFRecord, written without TensorFlow, in files that are complete or absent.

A TFRecord file is a sequence of frames (source: `tensorflow/core/lib/io/record_writer.h`):

    uint64 length | uint32 masked_crc32c(length) | bytes[length] | uint32 masked_crc32c(bytes)

all little-endian. A record is a serialized `tf.train.Example` (source:
`tensorflow/core/example/{example,feature}.proto`): a map from a feature's name to one list of
int64, float32 or bytes values. The encoder writes the map in ascending order of names, so that
equal features give equal bytes, whatever the order of the mapping.

Example:
  >>> import tempfile, pathlib
  >>> path = pathlib.Path(tempfile.mkdtemp()) / "part-00000"
  >>> write_tfrecord(path, [encode_example({"user_id": 7, "genres": [1, 5], "rating": 4.0})])
  1
  >>> path.stat().st_size
  74
"""

import contextlib
import functools
import os
import secrets
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import crc32c
import numpy as np

from monolith_jax.errors import DataError

_MASK_DELTA = 0xA282EAD8
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_LENGTH = struct.Struct("<Q")
_HEADER = struct.Struct("<QI")
_UINT32 = struct.Struct("<I")
_FLOAT = struct.Struct("<f")


def masked_crc32c(data: bytes) -> int:
    """Returns TFRecord's checksum of `data`: its crc32c, rotated right by 15 bits, plus a constant.

    Example:
      >>> hex(masked_crc32c(b"123456789"))
      '0xc78ab0e5'
    """
    crc = crc32c.crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame(record: bytes) -> bytes:
    """Returns `record` as it stands in a TFRecord file: length, crc, bytes, crc."""
    size = len(record)
    header = _HEADER.pack(size, masked_crc32c(_LENGTH.pack(size)))
    return b"".join((header, record, _UINT32.pack(masked_crc32c(record))))


def encode_example(features: Mapping[str, Any]) -> bytes:
    """Returns a serialized `tf.train.Example`.

    Args:
      features: name to value. A value is a scalar, a list, a tuple or a 0-d or 1-d array, of
        integers or booleans (written as int64), floats (rounded to float32), or texts or bytes
        (text as UTF-8). An empty list has no type: give `np.zeros(0, np.int64)` instead.

    Raises:
      DataError: names the feature whose value is none of these, or lies outside int64.
    """
    if not features:
        return b""  # An unset message field is left out, here as in TF.
    entries = bytearray()
    for name in sorted(features):
        try:
            feature = _feature(features[name])
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"feature {name!r}: {error}") from error
        entry = b"".join((_key(name), b"\x12", _varint(len(feature)), feature))
        entries += b"\x0a"
        entries += _varint(len(entry))
        entries += entry
    return b"".join((b"\x0a", _varint(len(entries)), entries))


@functools.lru_cache(maxsize=4096)
def _key(name: str) -> bytes:
    text = name.encode()
    return b"\x0a" + _varint(len(text)) + text


def _feature(value: Any) -> bytes:
    """Returns a serialized `tf.train.Feature`; scalars, by far the most frequent, come first."""
    if isinstance(value, int):
        return _listed(b"\x1a", _varint(value))
    if isinstance(value, float):
        return _listed(b"\x12", _FLOAT.pack(value))
    if isinstance(value, str | bytes):
        return _bytes_list([value])
    if isinstance(value, list | tuple) and all(isinstance(item, str | bytes) for item in value):
        if not value:
            raise ValueError("an empty list has no type: give an empty numpy array of its dtype")
        return _bytes_list(value)
    return _array(np.atleast_1d(np.asarray(value)))


def _array(array: np.ndarray) -> bytes:
    if array.ndim != 1:
        raise ValueError(f"expected a scalar or a list, got shape {array.shape}")
    if array.dtype.kind in "iub":
        return _listed(b"\x1a", b"".join(map(_varint, array.tolist())))
    if array.dtype.kind == "f":
        return _listed(b"\x12", array.astype("<f4").tobytes())
    if array.dtype.kind in "SU":
        return _bytes_list(array.tolist())
    raise ValueError(f"dtype {array.dtype} is neither integers, floats, texts nor bytes")


def _listed(tag: bytes, packed: bytes) -> bytes:
    """Wraps packed numbers into a Feature's list; no values is an empty message, as in TF."""
    if not packed:
        return tag + b"\x00"
    inner = b"\x0a" + _varint(len(packed)) + packed
    return tag + _varint(len(inner)) + inner


def _bytes_list(values: Iterable[str | bytes]) -> bytes:
    items = (v.encode() if isinstance(v, str) else v for v in values)
    inner = b"".join(b"\x0a" + _varint(len(item)) + item for item in items)
    return b"\x0a" + _varint(len(inner)) + inner


def _varint(value: int) -> bytes:
    """Returns a base-128 varint; negative numbers, as 64-bit two's complement, take ten bytes."""
    if 0 <= value < 0x80:
        return value.to_bytes(1, "little")
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise ValueError(f"{value} is outside int64")
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a new local file for writing that takes its name only when the block ends well.

    The bytes go to a hidden neighbour, reach the disk (fsync), and only then get the name, so a
    reader finds the old file or the new one, never a part. On an exception nothing remains.

    Raises:
      DataError: if the file cannot be written (names the path and the system's reason).
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(partial, "xb")  # noqa: SIM115 - closed below, by `with`
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise  # The block's own trouble with another file.
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


class TFRecordWriter:
    """Writes one local TFRecord file, record by record; the file is complete or absent.

    Use as a context manager: the file appears at the end of the block, and not at all if the block
    raises.

    Args:
      path: the file to write; its folder is made. An existing file is replaced.

    Example:
      >>> import tempfile, pathlib
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "part-00000"
      >>> with TFRecordWriter(path) as writer:
      ...     writer.write(b"any bytes")
      >>> writer.count, path.stat().st_size
      (1, 25)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.count = 0
        self._context = atomic_file(path)
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._file = self._context.__enter__()
        return self

    def write(self, record: bytes) -> None:
        """Appends one record.

        Raises:
          ValueError: outside the `with` block.
        """
        if self._file is None:
            raise ValueError("write() works inside the with block only")
        self._file.write(frame(record))
        self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file = None
        self._context.__exit__(kind, error, traceback)


def write_tfrecord(path: str | os.PathLike[str], records: Iterable[bytes]) -> int:
    """Writes `records` to one local TFRecord file, complete or absent; returns how many."""
    with TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    return writer.count
