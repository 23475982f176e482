r"""The file of a saved step: a line that names the format, a JSON header, the compiler's bytes.

    "monolith-jax step 1\n" | uint64 little-endian: length of the header | header | payload

The header is UTF-8 JSON and holds the payload's length and sha256, so that a damaged file is told
from a good one before anything of it is used.
"""

import hashlib
import json
import struct
import zlib
from typing import Any

from monolith_jax import storage
from monolith_jax.errors import DataError

SUFFIX = ".step"
MAGIC = b"monolith-jax step 1\n"
_LENGTH = struct.Struct("<Q")
_MOST = 64 << 20  # bytes of a header; a real one has some hundred thousand at most


def write(path: str, header: dict[str, Any], payload: bytes) -> None:
    """Writes a file, local or in a bucket, complete or not at all.

    Args:
      path: of the file.
      header: JSON values.
      payload: what the compiler made; kept compressed.

    Raises:
      StorageError: it cannot be written.
    """
    packed = zlib.compress(payload, 1)
    about = {"bytes": len(payload), "packed": len(packed), "sha256": _digest(packed)}
    text = json.dumps(header | {"payload": about}, sort_keys=True).encode()
    storage.write_bytes(path, MAGIC + _LENGTH.pack(len(text)) + text + packed)


def read(path: str) -> tuple[dict[str, Any], bytes]:
    """Returns a file's header, and its payload still packed.

    Raises:
      DataError: it is no such file, or damaged; names it.
      StorageError: it cannot be read.

    Example:
      >>> import tempfile
      >>> path = storage.join(tempfile.mkdtemp(), "a.step")
      >>> write(path, {"model": "m"}, b"code")
      >>> header, packed = read(path)
      >>> header["model"], unpack(path, header, packed)
      ('m', b'code')
    """
    data = storage.read_bytes(path)
    start = len(MAGIC) + _LENGTH.size
    if not data.startswith(MAGIC) or len(data) < start:
        raise DataError(f"{path}: no step that this version saved")
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    if length > min(_MOST, len(data) - start):
        raise DataError(f"{path}: cut off within its header")
    try:
        header = json.loads(data[start : start + length])
    except ValueError as error:
        raise DataError(f"{path}: its header is no JSON: {error}") from error
    packed = data[start + length :]
    about = header.get("payload") if isinstance(header, dict) else None
    if not isinstance(about, dict) or about.get("sha256") != _digest(packed):
        raise DataError(f"{path}: damaged: its {len(packed):,} bytes of program are not as written")
    return header, packed


def unpack(path: str, header: dict[str, Any], packed: bytes) -> bytes:
    """Returns the payload, not more bytes of it than the header says.

    Raises:
      DataError: it is of another length.
    """
    wanted = header["payload"].get("bytes")
    inflate = zlib.decompressobj()
    try:
        payload = inflate.decompress(packed, wanted + 1 if isinstance(wanted, int) else 1)
    except zlib.error as error:
        raise DataError(f"{path}: damaged: {error}") from error
    if len(payload) != wanted:
        raise DataError(f"{path}: its program has not the {wanted} bytes that its header says")
    return payload


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
