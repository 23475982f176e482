"""gs:// paths: the same operations as on local files."""

import io
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, TypeVar, cast

from monolith_jax.storage import _bodies, _objects
from monolith_jax.storage._client import IncompleteError, is_transient
from monolith_jax.storage._errors import NotFoundError, StorageError, not_found, one_line
from monolith_jax.storage._glob import compile_glob, fixed_prefix
from monolith_jax.storage._info import FileInfo
from monolith_jax.storage._paths import GS, split_gs
from monolith_jax.storage._retry import retry_policy

T = TypeVar("T")

_SMALL = 16 << 20  # bytes; up to here an object is sent in one request
_REREADS = 5  # of an object that is replaced again and again while it is read


class Gcs:
    """Objects of Google Cloud Storage, or of an emulator (STORAGE_EMULATOR_HOST).

    A folder is what lies below a name that ends with "/". Every method raises StorageError,
    NotFoundError where it applies.
    """

    def size(self, path: str) -> int:
        """Returns the bytes of an object, as stored."""
        return _guard(path, lambda: _objects.stat(*_object(path))).size

    def read_bytes(self, path: str) -> bytes:
        """Returns the bytes of an object."""
        return _guard(
            path, lambda: _unmixed(lambda: _bodies.read_whole(_objects.stat(*_object(path))))
        )

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Returns bytes start..start + length of an object, or as many as it has."""
        return bytes(self._range(path, start, length, None))

    def read_into(self, path: str, start: int, out: memoryview) -> int:
        """Fills memory with the bytes from `start` on; returns how many there are."""
        body = self._range(path, start, len(out), out)
        if body is not out:
            out[: len(body)] = body
        return len(body)

    def _range(
        self, path: str, start: int, length: int, into: memoryview | None
    ) -> bytes | memoryview:
        def read() -> bytes | memoryview:
            found = _bodies.read_range_at_once(*_object(path), start, length, into)
            if found is not None:
                return found
            return _bodies.read_range(_objects.stat(*_object(path)), start, length, into)

        return _guard(path, read)

    def open_read(self, path: str) -> BinaryIO:
        """Opens an object to read: seekable, buffered, of one generation."""
        found = _guard(path, lambda: _objects.stat(*_object(path)))
        if found.encoded:
            return io.BytesIO(self.read_bytes(path))
        return cast(BinaryIO, io.BufferedReader(_Reader(path, found), 8 << 20))

    def write_bytes(self, path: str, data: bytes) -> None:
        """Writes an object, complete or not at all."""
        bucket, name = _object(path)
        if len(data) <= _SMALL:
            _guard(path, lambda: _objects.write(bucket, name, data))
        else:
            _guard(path, lambda: _objects.write_large(bucket, name, io.BytesIO(data)))

    def write_file(self, source: str, path: str) -> None:
        """Writes an object from a local file, complete or not at all."""
        with open(source, "rb") as file:
            head = file.read(_SMALL + 1)
            if len(head) <= _SMALL:
                return self.write_bytes(path, head)
            return _guard(path, lambda: _objects.write_large(*_object(path), file))

    def read_to(self, path: str, out: BinaryIO) -> None:
        """Writes the bytes of an object to `out`, which is rewound for a second attempt."""

        def read() -> None:
            out.seek(0)
            out.truncate()
            for chunk in _bodies.read_chunks(_objects.stat(*_object(path))):
                _write(out, chunk)

        _guard(path, lambda: _unmixed(read))

    def exists(self, path: str) -> bool:
        """Returns whether there is an object or a folder."""
        bucket, name = split_gs(path)
        return self.is_dir(path) or (bool(name) and self._is_object(bucket, name))

    def is_dir(self, path: str) -> bool:
        """Returns whether there is a folder: anything below path/, or a bucket."""
        bucket, name = split_gs(path)
        try:
            found, _, _ = _quiet(
                path, lambda: _objects.list_page(bucket, _below(name), None, None, 1)
            )
        except FileNotFoundError:
            return False
        return bool(found) or not name

    def list_files(self, folder: str, recursive: bool) -> list[FileInfo]:
        """Returns the objects below a folder, in the order of their names."""
        bucket, name = split_gs(folder)
        below = _below(name)
        objects, folders = _guard(folder, lambda: _list(bucket, below, None if recursive else "/"))
        if not objects and not folders and name:
            raise not_found(folder, lambda: _names_beside(bucket, name))
        return _infos(bucket, objects)

    def list_folders(self, folder: str) -> list[str]:
        """Returns the names of the folders right below a folder, in order."""
        bucket, name = split_gs(folder)
        below = _below(name)
        objects, folders = _guard(folder, lambda: _list(bucket, below, "/"))
        if not objects and not folders and name:
            raise not_found(folder, lambda: _names_beside(bucket, name))
        return sorted(found[len(below) : -1] for found in folders)

    def list_prefix(self, prefix: str) -> list[FileInfo]:
        """Returns all objects whose path begins with `prefix`, in the order of their names."""
        bucket, name = split_gs(prefix)
        return _infos(bucket, _guard(prefix, lambda: _list(bucket, name, None))[0])

    def glob(self, pattern: str) -> list[str]:
        """Returns the objects that match a pattern, in order."""
        split_gs(fixed_prefix(pattern) + "/")  # a wildcard in the bucket's name is not for listing
        matches = compile_glob(pattern).fullmatch
        return [f.path for f in self.list_prefix(fixed_prefix(pattern)) if matches(f.path)]

    def delete(self, path: str, recursive: bool) -> None:
        """Deletes an object, or with `recursive` a folder and all in it."""
        bucket, name = split_gs(path)
        if name and self._is_object(bucket, name):
            return _guard(path, lambda: _delete(bucket, [name]))
        if not self.is_dir(path):
            raise not_found(path, lambda: _names_beside(bucket, name))
        if not recursive:
            raise StorageError(f"{path}: a folder; pass recursive=True to delete all in it")
        objects, _ = _guard(path, lambda: _list(bucket, _below(name), None))
        return _guard(path, lambda: _delete(bucket, [found for found, _ in objects]))

    def _is_object(self, bucket: str, name: str) -> bool:
        try:
            _quiet(f"{GS}{bucket}/{name}", lambda: _objects.stat(bucket, name))
        except FileNotFoundError:
            return False
        return True


class _Reader(io.RawIOBase):
    """An object as a raw file; `io.BufferedReader` around it makes the requests large."""

    def __init__(self, path: str, of: _objects.Stat) -> None:
        self._path, self._of, self._at = path, of, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._of.size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self._path}: cannot seek to {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        into = view[: max(self._of.size - self._at, 0)]
        body = _guard(self._path, lambda: _bodies.read_range(self._of, self._at, len(into), into))
        if body is not into:
            into[:] = body
        self._at += len(body)
        return len(body)


def _object(path: str) -> tuple[str, str]:
    bucket, name = split_gs(path)
    if not name or name.endswith("/"):
        raise StorageError(f"{path}: a folder, not a file")
    return bucket, name


def _below(name: str) -> str:
    return name if not name or name.endswith("/") else name + "/"


def _write(out: BinaryIO, chunk: bytes | memoryview) -> None:
    try:
        out.write(chunk)
    except OSError as error:  # a full disk is no fault of the service
        raise StorageError(f"{out.name}: cannot be written: {error.strerror}") from error


def _unmixed(read: Callable[[], T]) -> T:
    """Reads an object again if it was replaced or damaged on the way."""
    for _ in range(_REREADS - 1):
        try:
            return read()
        except (_bodies.ReplacedError, IncompleteError):
            continue
    return read()


def _list(
    bucket: str, prefix: str, delimiter: str | None
) -> tuple[list[tuple[str, int]], list[str]]:
    """Returns all pages of a listing: objects as (name, size), and folders."""
    objects: list[tuple[str, int]] = []
    folders: list[str] = []
    token: str | None = None
    while True:
        page, below, token = _objects.list_page(bucket, prefix, delimiter, token)
        objects += page
        folders += below
        if not token:
            return objects, folders


def _infos(bucket: str, objects: Iterable[tuple[str, int]]) -> list[FileInfo]:
    # An empty object whose name ends with "/" is how some tools make a folder: it is no file.
    return sorted(
        FileInfo(f"{GS}{bucket}/{name}", size) for name, size in objects if not name.endswith("/")
    )


def _delete(bucket: str, names: list[str]) -> None:
    for start in range(0, len(names), 32):
        for future in [_objects.delete(bucket, name) for name in names[start : start + 32]]:
            try:
                future.result()
            except FileNotFoundError:
                continue  # an earlier try's answer was lost, or somebody else was faster


def _names_beside(bucket: str, name: str) -> list[str]:
    """Lists one page of the names in an object's folder, for the near misses of an error."""
    folder = name.rstrip("/").rpartition("/")[0]
    below = _below(folder)
    objects, folders, _ = _objects.list_page(bucket, below, "/", None)
    paths = [found for found, _ in objects] + [found.rstrip("/") for found in folders]
    return [found[len(below) :] for found in paths]


def _quiet(path: str, call: Callable[[], T]) -> T:
    """Runs a request; its error becomes a StorageError, but FileNotFoundError passes as it is."""
    try:
        return call()
    except (StorageError, FileNotFoundError):
        raise
    except Exception as error:
        raise _explained(path, error) from None


def _guard(path: str, call: Callable[[], T]) -> T:
    """Runs a request; its error becomes one that names the path, its near misses and the remedy."""
    try:
        return _quiet(path, call)
    except NotFoundError:
        raise
    except FileNotFoundError:
        bucket, name = split_gs(path)
        try:
            _objects.list_page(bucket, "", None, None, 1)
        except FileNotFoundError:
            raise NotFoundError(f"{path}: there is no bucket {bucket!r}") from None
        except Exception as error:
            raise _explained(path, error) from None
        raise not_found(path, lambda: _names_beside(bucket, name)) from None


def _explained(path: str, error: Exception) -> StorageError:
    code = str(getattr(error, "code", ""))
    if code == "401" or str(error).startswith("Forbidden"):
        return StorageError(
            f"{path}: access denied ({one_line(error)}); set GOOGLE_APPLICATION_CREDENTIALS or "
            "run `gcloud auth application-default login` with an account that may use the bucket"
        )
    if isinstance(error, _bodies.ReplacedError):
        return StorageError(f"{path}: replaced again and again while it was read")
    tries = f"gave up after {retry_policy().tries} tries: " if is_transient(error) else ""
    return StorageError(f"{path}: {tries}{one_line(error)}")
