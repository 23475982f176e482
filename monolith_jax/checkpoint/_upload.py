"""Writes checkpoints to a bucket in the background, one process or several, and keeps the newest.

Each process copies what it holds to the host, writes it to files of its own local disk and uploads
them. Once all have arrived, and all processes know it, process 0 adds the index and the marker. So
a step is complete or invisible, whichever process dies when.

orbax could write to gs:// itself, and does so on an emulator. It is not used for it because its
small files go through TensorFlow's gfile wherever TensorFlow can be imported and through gcsfs
elsewhere, tensorstore sets no limit on how long a line may say nothing, and an answer that arrives
short or damaged ends a restore, where `monolith_jax.storage` asks again.
"""

import itertools
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from monolith_jax import distributed, storage
from monolith_jax.checkpoint import _bucket, _state
from monolith_jax.checkpoint.tf import merge_bundle
from monolith_jax.errors import CheckpointError

StateT = TypeVar("StateT")
_log = logging.getLogger(__name__)

WAIT_S = 3600.0
"""How long a process waits for the others' uploads."""

_AT_ONCE = 8  # files on the wire
_numbers = itertools.count()


class Upload:
    """The checkpoints of a bucket's folder. In a run of several processes all make it alike.

    Args:
      folder: the checkpoints' folder in the bucket.
      keep: how many of the newest to keep; None: all.
      read_only: nothing is written or deleted, and nothing agreed with other processes.
      allowed: called before a step becomes visible; raises if it must not.
    """

    _running: Future[None] | None
    _steps: list[int]

    def __init__(
        self, folder: str, keep: int | None, read_only: bool, allowed: Callable[[], None]
    ) -> None:
        self._folder, self._keep, self._allowed = folder, keep, allowed
        self._read_only, self._running = read_only, None
        self._doomed: list[int] = []
        if read_only:
            self._steps = _bucket.committed(folder)
            return
        found: list[int] = []
        distributed.primary_only(lambda: found.extend(_ready(folder)))
        self._steps = distributed.from_primary(found)
        self._bundle = f"state-{distributed.from_primary(os.urandom(4).hex())}"
        self._channel = f"upload-{next(_numbers)}"
        # A full disk of one host must not let the others wait.
        self._staging = distributed.all_or_none(_bucket.staging_folder, self._channel)
        self._pool = ThreadPoolExecutor(1, "checkpoint-upload")

    def steps(self) -> list[int]:
        """Returns the steps that are complete in the bucket, ascending."""
        if self._read_only:  # a trainer beside us may have written more
            self._steps = _bucket.committed(self._folder)
        return list(self._steps)

    def last_good(self) -> str:
        """Returns the newest complete step's path, or "none"."""
        return f"{self._folder}/{self._steps[-1]}" if self._steps else "none"

    def start(self, step: int, state: Any, run: dict[str, Any]) -> None:
        """Copies what this process holds to the host, and starts to write it."""
        count = _state.files(state, jax.process_count())
        pieces = _state.snapshot(state)
        self._running = self._pool.submit(self._carry, step, pieces, count, run)

    def _carry(
        self, step: int, pieces: list[_state.Piece], count: int, run: dict[str, Any]
    ) -> None:
        """Writes one step; every process does, and all of them fail if one does."""
        shards = count * jax.process_count()
        self._together(lambda: self._send(step, pieces, count, shards))
        self._together(lambda: self._commit(step, shards, run))
        self._steps = sorted([*self._steps, step])
        self._prune()

    def _together(self, make: Callable[[], None]) -> None:
        distributed.all_or_none(make, self._channel, WAIT_S)

    def _send(self, step: int, pieces: list[_state.Piece], count: int, shards: int) -> None:
        """Writes this process's data files, and uploads them."""
        local = self._staging / str(step)
        try:
            first = count * jax.process_index()
            _state.write(local / self._bundle, pieces, first, count, shards)
            pieces.clear()
            remote = f"{self._folder}/{step}"
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                sent = [
                    pool.submit(storage.upload, path, f"{remote}/{path.name}")
                    for path in sorted(local.iterdir())
                ]
            for one in sent:
                one.result()
        finally:
            shutil.rmtree(local, ignore_errors=True)

    def _commit(self, step: int, shards: int, run: dict[str, Any]) -> None:
        """Makes a step visible whose data files have all arrived."""
        if not distributed.is_primary():
            return
        remote = f"{self._folder}/{step}"
        if shards > 1:
            merge_bundle(f"{remote}/{self._bundle}", shards)
        self._allowed()
        _bucket.commit(remote, self._bundle, run)

    def _prune(self) -> None:
        """Deletes what is not kept; what cannot be deleted now is tried again after the next."""
        if self._keep is None:
            return
        self._doomed += self._steps[: -self._keep]
        self._steps = self._steps[-self._keep :]
        if not distributed.is_primary():
            return
        for step in list(self._doomed):
            try:
                _bucket.remove(f"{self._folder}/{step}")
                self._doomed.remove(step)
            except storage.StorageError as error:
                _log.warning("an old checkpoint stays until the next is saved: %s", error)

    def restore(self, step: int, abstract: StateT) -> tuple[StateT, dict[str, Any]]:
        """Reads a step onto the shardings of `abstract`, each process what its devices need.

        Raises:
          CheckpointError: it is damaged, or its arrays are not those of `abstract`.
        """
        bundle = self._bundle_of(step)
        return _state.read(bundle, abstract), _bucket.run_of(f"{self._folder}/{step}")

    def names(self, step: int) -> set[str]:
        """Returns the names of a step's arrays, without reading one.

        Raises:
          CheckpointError: it is damaged.
        """
        return set(_state.held(self._bundle_of(step)))

    def _bundle_of(self, step: int) -> str:
        folder = f"{self._folder}/{step}"
        bundle = _bucket.bundle_of(folder)
        if bundle is None:
            raise CheckpointError(
                f"{folder} is of orbax's layout, which is read from local folders only; copy the "
                "model dir to one"
            )
        return bundle

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
            shutil.rmtree(self._staging, ignore_errors=True)


def _ready(folder: str) -> list[int]:
    """Deletes what killed processes left in a folder; returns the complete steps."""
    _bucket.remove_unfinished(folder)
    return _bucket.committed(folder)
