"""Files being written: hidden until they are whole and on the disk."""

import contextlib
import os
import shutil
import tempfile
import uuid
from concurrent.futures import Future, ThreadPoolExecutor

from monolith_jax import storage

_SYNC_EVERY = 32 << 20  # bytes; the disk begins while there is still more to write


class Output:
    """A file that appears under its path with `publish`, complete, or never.

    A local one is written beside its place, under a hidden name that no listing of
    `monolith_jax.storage` shows; one for gs:// in a temporary folder, and uploaded.
    """

    def __init__(self, path: str) -> None:
        self.path, self._remote = path, storage.is_gs(path)
        name = f".{os.path.basename(path)[:100]}.{uuid.uuid4().hex[:12]}.unfinished"
        if self._remote:
            self._folder = tempfile.mkdtemp(prefix="monolith-jax-")
        else:
            self.path = os.path.expanduser(path)
            self._folder = os.path.dirname(self.path) or "."
            os.makedirs(self._folder, exist_ok=True)
        self._temporary = os.path.join(self._folder, name)
        self._file = open(self._temporary, "xb", buffering=1 << 20)  # noqa: SIM115 (publish closes)
        self._behind = 0
        self._syncing: Future[None] | None = None
        self._pool: ThreadPoolExecutor | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes."""
        self._file.write(data)
        self._behind += len(data)
        if self._behind >= _SYNC_EVERY and not self._remote:
            self._sync_beside()

    def _sync_beside(self) -> None:
        """Has the disk write what is there while more comes; a failure is raised by the next."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "sync")
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()
        self._behind = 0
        self._syncing = self._pool.submit(os.fdatasync, self._file.fileno())

    def _end_sync(self) -> BaseException | None:
        """Waits for the disk, so that the file may be closed; returns what it said."""
        if self._pool is None or self._syncing is None:
            return None
        self._pool.shutdown()
        return self._syncing.exception()

    def publish(self) -> None:
        """Puts the bytes on the disk and the file in its place."""
        self._file.flush()
        if self._remote:
            self._file.close()
            storage.upload(self._temporary, self.path)
            self.discard()
            return
        failed = self._end_sync()
        if failed is not None:  # the kernel reports a lost page once: the last fsync would be fine
            raise failed
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self.path)
        storage.sync_folder(self._folder)

    def discard(self) -> None:
        """Deletes what was written and not published."""
        self._end_sync()  # a failure does not matter to a file that goes
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._temporary)
        if self._remote:
            shutil.rmtree(self._folder, ignore_errors=True)


def remove(path: str) -> None:
    """Deletes a file if it is there, for good; another process may be at it too."""
    if storage.is_gs(path):
        try:
            storage.delete(path)
        except storage.StorageError:
            if storage.exists(path):
                raise
        return
    local = os.path.expanduser(path)
    with contextlib.suppress(FileNotFoundError):
        os.remove(local)
        storage.sync_folder(os.path.dirname(local) or ".")
