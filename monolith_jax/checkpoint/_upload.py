"""Carries finished checkpoints from the local disk to a bucket, in the background."""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import orbax.checkpoint as ocp

from monolith_jax.checkpoint import _bucket
from monolith_jax.errors import CheckpointError


class Upload:
    """What carries the finished steps of a staging folder to a bucket, one after the other.

    Args:
      folder: the checkpoints' folder in the bucket.
      keep: how many of the newest to keep; None: all.
      read_only: nothing is staged or deleted.
    """

    def __init__(self, folder: str, keep: int | None, read_only: bool) -> None:
        self._folder, self._keep = folder, keep
        self._steps = _bucket.committed(folder)
        self._read_only, self._running = read_only, None
        if read_only:
            return
        if jax.process_count() > 1:
            raise CheckpointError(
                f"{folder}: several processes cannot write native checkpoints to gs:// yet; "
                "take a folder that all of them share, or one process"
            )
        _bucket.remove_unfinished(folder)
        self.staging = _bucket.staging_folder()
        self._pool = ThreadPoolExecutor(1, "checkpoint-upload")

    _running: Future[None] | None

    def steps(self) -> list[int]:
        """Returns the steps that are complete in the bucket, ascending."""
        if self._read_only:  # a trainer beside us may have written more
            self._steps = _bucket.committed(self._folder)
        return list(self._steps)

    def last_good(self) -> str:
        """Returns the newest complete step's path, or "none"."""
        return f"{self._folder}/{self._steps[-1]}" if self._steps else "none"

    def start(self, step: int, manager: ocp.CheckpointManager) -> None:
        """Starts to wait for a local save, to upload it, and to delete what is not kept."""
        self._running = self._pool.submit(self._carry, step, manager)

    def _carry(self, step: int, manager: ocp.CheckpointManager) -> None:
        manager.wait_until_finished()
        _bucket.commit(self.staging / str(step), f"{self._folder}/{step}")
        self._steps = sorted([*self._steps, step])
        manager.delete(step)
        while self._keep is not None and len(self._steps) > self._keep:
            _bucket.remove(f"{self._folder}/{self._steps[0]}")
            del self._steps[0]

    def check(self) -> None:
        """Raises what stopped an upload that has ended."""
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the upload; raises what stopped it, once."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """Gives thread and local disk back."""
        if not self._read_only:
            self._pool.shutdown()
            shutil.rmtree(self.staging, ignore_errors=True)
