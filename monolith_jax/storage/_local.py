"""Local files: the same operations as on gs://, complete or absent."""

import contextlib
import glob as stdlib_glob
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from monolith_jax.storage._errors import StorageError, not_found, one_line
from monolith_jax.storage._info import FileInfo

T = TypeVar("T")

# A file being written: hidden, and left out of listings. One that a killed process left behind is
# harmless and may be deleted.
_UNFINISHED = ".unfinished"


class Local:
    """Files of this machine. Every method raises StorageError, NotFoundError where it applies."""

    def size(self, path: str) -> int:
        """Returns the bytes of a file."""
        self._need_file(path)
        return _guard(path, lambda: os.stat(path).st_size)

    def read_bytes(self, path: str) -> bytes:
        """Returns the bytes of a file."""
        with self.open_read(path) as file:
            return _guard(path, file.read)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Returns bytes start..start + length of a file, or as many as it has."""
        with self.open_read(path) as file:
            return _guard(path, lambda: os.pread(file.fileno(), length, start))

    def read_into(self, path: str, start: int, out: memoryview) -> int:
        """Fills memory with the bytes from `start` on; returns how many there are."""
        with self.open_read(path) as file:
            _guard(path, lambda: file.seek(start))
            return _guard(path, lambda: file.readinto(out))  # type: ignore[attr-defined, no-any-return]

    def open_read(self, path: str) -> BinaryIO:
        """Opens a file to read."""
        self._need_file(path)
        return _guard(path, lambda: open(path, "rb"))

    def write_bytes(self, path: str, data: bytes) -> None:
        """Writes a file, complete or not at all."""
        with atomic_writer(path) as file:
            file.write(data)

    def write_file(self, source: str, path: str) -> None:
        """Copies a local file, complete or not at all."""
        with self.open_read(source) as file, atomic_writer(path) as out:
            shutil.copyfileobj(file, out, 1 << 20)

    def read_to(self, path: str, out: BinaryIO) -> None:
        """Writes the bytes of a file to `out`."""
        with self.open_read(path) as file:
            shutil.copyfileobj(file, out, 1 << 20)

    def exists(self, path: str) -> bool:
        """Returns whether there is a file or a folder."""
        return os.path.exists(path)

    def is_dir(self, path: str) -> bool:
        """Returns whether there is a folder."""
        return os.path.isdir(path)

    def list_files(self, folder: str, recursive: bool) -> list[FileInfo]:
        """Returns the files below a folder, in the order of their paths."""
        if not os.path.isdir(folder):
            raise not_found(folder, lambda: _names_beside(folder))
        return _guard(folder, lambda: sorted(_walk(folder, recursive)))

    def list_folders(self, folder: str) -> list[str]:
        """Returns the names of the folders right below a folder, in order."""
        if not os.path.isdir(folder):
            raise not_found(folder, lambda: _names_beside(folder))
        return sorted(
            e.name for e in _guard(folder, lambda: list(os.scandir(folder))) if e.is_dir()
        )

    def list_prefix(self, prefix: str) -> list[FileInfo]:
        """Returns all files whose path begins with `prefix`, in the order of their paths."""
        folder = os.path.dirname(prefix) or "."
        if not os.path.isdir(folder):
            return []
        found: list[FileInfo] = []
        for name in os.listdir(folder):
            path = os.path.join(os.path.dirname(prefix), name)
            if not path.startswith(prefix) or name.endswith(_UNFINISHED):
                continue
            found += _walk(path, True) if os.path.isdir(path) else [_info(path)]
        return sorted(found)

    def glob(self, pattern: str) -> list[str]:
        """Returns the files that match a pattern, in order."""
        found = stdlib_glob.iglob(pattern, recursive=True, include_hidden=True)
        return sorted({p for p in found if os.path.isfile(p) and not p.endswith(_UNFINISHED)})

    def delete(self, path: str, recursive: bool) -> None:
        """Deletes a file, or a folder and all in it."""
        if os.path.isdir(path) and not os.path.islink(path):
            if not recursive:
                raise StorageError(f"{path}: a folder; pass recursive=True to delete all in it")
            return _guard(path, lambda: shutil.rmtree(path))
        if not os.path.lexists(path):
            raise not_found(path, lambda: _names_beside(path))
        return _guard(path, lambda: os.remove(path))

    def _need_file(self, path: str) -> None:
        if os.path.isdir(path):
            raise StorageError(f"{path}: a folder, not a file")
        if not os.path.exists(path):
            raise not_found(path, lambda: _names_beside(path))


@contextlib.contextmanager
def atomic_writer(path: str) -> Iterator[BinaryIO]:
    """Opens a new file that appears under `path` only once it is complete and on the disk.

    Until then its bytes lie in a hidden file beside it, which is removed if the block raises. What
    was under `path` before stays until the moment it is replaced.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name[:100]}.{uuid.uuid4().hex[:12]}{_UNFINISHED}")
    _guard(path, lambda: os.makedirs(folder or ".", exist_ok=True))
    if os.path.isdir(path):
        raise StorageError(f"{path}: a folder, not a file")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(folder or ".")
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise StorageError(f"{path}: cannot be written: {one_line(error)}") from error
        raise


def sync_folder(folder: str) -> None:
    """Puts renames in a local folder on the disk: without it a power cut may undo them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _walk(
    folder: str, recursive: bool, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[FileInfo]:
    if recursive:  # remember the folders above: a link to one of them would never end
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        above |= {here}
    for entry in os.scandir(folder):
        if entry.is_dir():
            if recursive:
                yield from _walk(entry.path, True, above)
        elif not entry.name.endswith(_UNFINISHED):
            yield _info(entry.path)


def _info(path: str) -> FileInfo:
    # lstat: a link to nowhere is listed, not an error
    return FileInfo(path, os.stat(path).st_size if os.path.exists(path) else os.lstat(path).st_size)


def _names_beside(path: str) -> list[str]:
    return os.listdir(os.path.dirname(path.rstrip("/")) or ".")


def _guard(path: str, call: Callable[[], T]) -> T:
    """Runs a system call; its error becomes one that names the path."""
    try:
        return call()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or one_line(error)}") from error
