"""gs:// and local paths behind one small interface.

Every function takes a local path or gs://bucket/name, and behaves alike on both:

- What is written or downloaded is complete or not there: local files through a synced rename,
  objects with their crc32c sent ahead.
- What is read is whole and of one version: lengths and checksums are compared with the service's.
- Requests that fail with 408, 429, 5xx, a cut line or a silent one are sent again, with bounded
  exponential backoff (`RetryPolicy`); nothing is lost or doubled.
- Errors are `StorageError`s that name the path, and the nearest one that exists. Neither they nor
  the log hold credentials, which gcsfs takes from the environment.

gcsfs is imported with the first gs:// path. An emulator is used if STORAGE_EMULATOR_HOST names one.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO

from monolith_jax.storage._errors import NotFoundError, StorageError
from monolith_jax.storage._glob import has_magic
from monolith_jax.storage._info import FileInfo
from monolith_jax.storage._local import Local, atomic_writer, sync_folder
from monolith_jax.storage._paths import Path, bucket_of, in_bucket, is_gs, join, split_gs
from monolith_jax.storage._retry import RetryPolicy, retry_policy, set_retry_policy

if TYPE_CHECKING:
    from monolith_jax.storage._gcs import Gcs

__all__ = [
    "FileInfo",
    "NotFoundError",
    "Path",
    "RetryPolicy",
    "StorageError",
    "bucket_of",
    "delete",
    "download",
    "download_folder",
    "exists",
    "glob",
    "has_magic",
    "in_bucket",
    "is_dir",
    "is_gs",
    "join",
    "list_files",
    "list_folders",
    "list_prefix",
    "open_read",
    "read_bytes",
    "read_into",
    "read_range",
    "retry_policy",
    "set_retry_policy",
    "size",
    "split_gs",
    "sync_folder",
    "upload",
    "write_bytes",
]


def _store(path: Path) -> "tuple[Gcs | Local, str]":
    text = os.fspath(path)
    if not text:
        raise StorageError("an empty path")
    if not is_gs(text):
        return Local(), os.path.expanduser(text)
    from monolith_jax.storage._gcs import Gcs  # 40 ms, which local paths need not wait for

    return Gcs(), text


def read_bytes(path: Path) -> bytes:
    """Returns all bytes of a file.

    Raises:
      NotFoundError: there is no such file; the message names the nearest.
      StorageError: it cannot be read.

    Example:
      >>> import tempfile
      >>> path = join(tempfile.mkdtemp(), "a")
      >>> write_bytes(path, b"abc")
      >>> read_bytes(path)
      b'abc'
    """
    store, text = _store(path)
    return store.read_bytes(text)


def read_range(path: Path, start: int, length: int) -> bytes:
    """Returns exactly the bytes start..start + length of a file.

    Args:
      path: the file.
      start: the first byte, from 0.
      length: how many.

    Raises:
      NotFoundError: there is no such file.
      StorageError: it ends before start + length, or cannot be read.

    Example:
      >>> import tempfile
      >>> path = join(tempfile.mkdtemp(), "a")
      >>> write_bytes(path, b"abcdef")
      >>> read_range(path, 2, 3)
      b'cde'
    """
    if start < 0 or length < 0:
        raise StorageError(f"{os.fspath(path)}: no bytes {start}..{start + length}")
    store, text = _store(path)
    found = store.read_range(text, start, length)
    if len(found) != length:
        raise StorageError(
            f"{text}: bytes {start}..{start + length} were asked for; it ends at {store.size(text)}"
        )
    return found


def read_into(path: Path, start: int, out: memoryview) -> None:
    """Fills memory with the bytes from `start` on of a file, without a copy on the way.

    Args:
      path: the file.
      start: the first byte, from 0.
      out: writable, of bytes (format "B").

    Raises:
      NotFoundError: there is no such file.
      StorageError: it ends before start + len(out), or cannot be read.

    Example:
      >>> import tempfile
      >>> path = join(tempfile.mkdtemp(), "a")
      >>> write_bytes(path, b"abcdef")
      >>> memory = bytearray(3)
      >>> read_into(path, 2, memoryview(memory))
      >>> memory
      bytearray(b'cde')
    """
    store, text = _store(path)
    if start < 0:
        raise StorageError(f"{text}: no byte {start}")
    if store.read_into(text, start, out) != len(out):
        raise StorageError(
            f"{text}: bytes {start}..{start + len(out)} were asked for; it ends at"
            f" {store.size(text)}"
        )


def open_read(path: Path) -> BinaryIO:
    """Opens a file to read: binary, seekable, buffered.

    Example:
      >>> import tempfile
      >>> path = join(tempfile.mkdtemp(), "a")
      >>> write_bytes(path, b"abc")
      >>> with open_read(path) as file:
      ...     file.seek(1), file.read()
      (1, b'bc')
    """
    store, text = _store(path)
    return store.open_read(text)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, complete or not at all; folders are made as needed.

    Raises:
      StorageError: it cannot be written; what was there before is unharmed.
    """
    store, text = _store(path)
    store.write_bytes(text, bytes(data))


def size(path: Path) -> int:
    """Returns the bytes of a file."""
    store, text = _store(path)
    return store.size(text)


def exists(path: Path) -> bool:
    """Returns whether there is a file or a folder."""
    store, text = _store(path)
    return store.exists(text)


def is_dir(path: Path) -> bool:
    """Returns whether there is a folder. On gs:// it is one if anything lies below it."""
    store, text = _store(path)
    return store.is_dir(text)


def list_files(folder: Path, recursive: bool = True) -> list[str]:
    """Returns the paths of the files below a folder, in ascending order.

    Args:
      folder: the folder, with or without a "/" at the end.
      recursive: also those in its folders.

    Raises:
      NotFoundError: there is no such folder.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> write_bytes(join(folder, "20200501/part-0"), b"")
      >>> [path.removeprefix(folder) for path in list_files(folder)]
      ['/20200501/part-0']
    """
    store, text = _store(folder)
    return [info.path for info in store.list_files(text, recursive)]


def list_folders(folder: Path) -> list[str]:
    """Returns the names of the folders right below a folder, in ascending order.

    Raises:
      NotFoundError: there is no such folder.
    """
    store, text = _store(folder)
    return store.list_folders(text)


def list_prefix(prefix: Path) -> list[FileInfo]:
    """Returns all files whose path begins with `prefix`, in ascending order; maybe none.

    Raises:
      NotFoundError: there is no such bucket.
    """
    store, text = _store(prefix)
    return store.list_prefix(text)


def glob(pattern: Path) -> list[str]:
    """Returns the files that match a pattern, in ascending order; maybe none. Folders do not count.

    `*` and `?` stay within one part of a path, a part `**` is any number of parts, and [ab] one
    of a set.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> for day in ("20200501", "20200502"):
      ...     write_bytes(join(folder, day, "part-0"), b"")
      >>> [path.removeprefix(folder) for path in glob(folder + "/*02/part*")]
      ['/20200502/part-0']
    """
    store, text = _store(pattern)
    return store.glob(text)


def download(source: Path, target: Path) -> None:
    """Copies a file to a local file, complete or not at all.

    Args:
      source: gs:// or local.
      target: a local path; its folder is made as needed.

    Raises:
      NotFoundError: there is no such file.
      StorageError: it cannot be read or written; what was at `target` is unharmed.
    """
    store, text = _store(source)
    if is_gs(target):
        raise StorageError(f"{os.fspath(target)}: a download goes to a local path; see upload")
    local = os.path.expanduser(os.fspath(target))
    if local.endswith("/"):
        raise StorageError(f"{local}: a file name is needed, not a folder")
    with atomic_writer(local) as out:
        store.read_to(text, out)


def download_folder(source: Path, target: Path) -> list[str]:
    """Copies all files below a folder to a local folder, each complete or not at all.

    Args:
      source: gs:// or local.
      target: a local folder, made as needed.

    Returns:
      The local paths, in ascending order.

    Raises:
      StorageError: a name holds a part like ".." that would lead out of `target`; then nothing
        is copied.
    """
    base = os.fspath(source).rstrip("/") + "/"
    names = [path.removeprefix(base) for path in list_files(base)]
    targets = [join(target, name) for name in names]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name, to: download(base + name, to), names, targets))
    return sorted(os.path.expanduser(path) for path in targets)


def upload(source: Path, target: Path) -> None:
    """Copies a local file to gs:// or another local path, complete or not at all.

    Raises:
      NotFoundError: there is no such file.
      StorageError: it cannot be read or written; what was at `target` is unharmed.
    """
    if is_gs(source):
        raise StorageError(f"{os.fspath(source)}: an upload comes from a local path; see download")
    local = os.path.expanduser(os.fspath(source))
    Local().size(local)  # the clear error if it is missing or a folder
    store, text = _store(target)
    store.write_file(local, text)


def delete(path: Path, *, recursive: bool = False) -> None:
    """Deletes a file, or with `recursive` a folder and all that lies in it.

    Raises:
      NotFoundError: there is nothing there.
      StorageError: it is a folder and `recursive` is not set.
    """
    store, text = _store(path)
    store.delete(text, recursive)
