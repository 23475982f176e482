"""The files of a bundle, read by ranges: local ones by preadv, gs:// ones through storage."""

import os
import threading
import weakref
from typing import Protocol

from monolith_jax import storage
from monolith_jax.checkpoint.tf._wire import Malformed

_OPEN_FILES = 200  # kept open; more are opened for each read


def data_path(prefix: str, shard: int, shards: int) -> str:
    """Returns the path of a data file.

    Example:
      >>> data_path("m/model.ckpt-3", 0, 2)
      'm/model.ckpt-3.data-00000-of-00002'
    """
    return f"{prefix}.data-{shard:05d}-of-{shards:05d}"


class DataFile(Protocol):
    """A file that is read by ranges.

    Attributes:
      size: its bytes.
      chunk: the bytes of one read that pay best.
    """

    size: int
    chunk: int

    def read_into(self, out: memoryview, offset: int) -> None:
        """Fills `out` with the bytes from `offset` on.

        Raises:
          Malformed: the file ends before.
        """

    def close(self) -> None:
        """Frees what the file holds."""


class _Local:
    chunk = 1 << 20  # so that the checksum finds the bytes in the cache

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size

    def read_into(self, out: memoryview, offset: int) -> None:
        done = 0
        while done < len(out):
            count = os.preadv(self._file, [out[done:]], offset + done)
            if count == 0:
                raise Malformed(f"the file ends at {offset + done}")
            done += count

    def close(self) -> None:
        self._close()


class _Remote:
    chunk = 32 << 20

    def __init__(self, path: str) -> None:
        self._path, self.size = path, storage.size(path)

    def read_into(self, out: memoryview, offset: int) -> None:
        storage.read_into(self._path, offset, out)

    def close(self) -> None:
        pass


class DataFiles:
    """The data files of a bundle, opened when first read; for any number of threads.

    Attributes:
      local: whether reading is cheap to begin: no requests over the network.
    """

    def __init__(self, prefix: str, shards: int) -> None:
        self._prefix, self._shards = prefix, shards
        self.local = not storage.is_gs(prefix)
        self._open: dict[int, DataFile] = {}
        self._lock = threading.Lock()

    def path(self, shard: int) -> str:
        """Returns the path of a data file."""
        return data_path(self._prefix, shard, self._shards)

    def file(self, shard: int) -> DataFile:
        """Returns a data file, open.

        Raises:
          StorageError: it is missing or cannot be read.
          OSError: likewise.
        """
        found = self._open.get(shard)
        if found is not None:
            return found
        with self._lock:
            if shard not in self._open:
                if len(self._open) >= _OPEN_FILES:
                    self._open.pop(next(iter(self._open)))  # closed when the last reader is done
                self._open[shard] = open_data(self.path(shard))
            return self._open[shard]

    def close(self) -> None:
        """Closes the files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()


def open_data(path: str) -> DataFile:
    """Opens one file to be read by ranges."""
    return _Remote(path) if storage.is_gs(path) else _Local(os.path.expanduser(path))
