"""Keeps two trainers out of one model dir in a bucket, which has no locks of its own.

    DIR/.lock    {"owner", "process", "host", "beat"}, or {"free"} once it was given back

The holder replaces the object every `BEAT_S` seconds, always on condition that it is still the
version that the holder wrote. One that has not been replaced for `STALE_S` seconds, by the
service's clock alone, may be taken by anybody, on the same condition: of two one wins. It may be
taken at once where the holder ran on this machine and is gone. Who finds a holder of another
machine waits until the object is replaced (then it is in use) or stale. A holder that was cut off
so long that another took its place learns it with its next beat, and before a checkpoint of its
own becomes visible.
"""

import json
import logging
import platform
import threading
import time
import uuid
from typing import Any

from monolith_jax import storage
from monolith_jax._process import Process, is_gone, this_process
from monolith_jax.errors import CheckpointError
from monolith_jax.storage import conditional

_log = logging.getLogger(__name__)

BEAT_S = 20.0
"""How often a holder says that it is there."""

STALE_S = 120.0
"""After how long a silence its place may be taken."""

_LOOK_S = 3.0  # between two looks at a holder that may be dead


class Lease:
    """The right to write into one model dir, taken when this is made.

    Args:
      model_dir: gs://bucket/folder.

    Raises:
      CheckpointError: another run holds it; the message names its process and host.
      StorageError: the bucket cannot be read or written.
    """

    def __init__(self, model_dir: str) -> None:
        self._model_dir, self._path = model_dir, storage.join(model_dir, ".lock")
        self._owner, self._beats = uuid.uuid4().hex, 0
        self._taken_by: str | None = None
        self._one_at_a_time = threading.Lock()
        self._generation = self._take()
        self._heard = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(
            target=self._beat_on, args=(BEAT_S,), name="lease", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Raises if this run may not write any more; asks the bucket if that is not sure.

        Raises:
          CheckpointError: another run took the model dir over; or the bucket could not be reached
            for so long that one may have.
        """
        silent = time.monotonic() - self._heard
        if self._taken_by is None and silent > 2 * BEAT_S:
            try:
                self.beat()
            except storage.StorageError as error:
                if silent > STALE_S:
                    raise CheckpointError(
                        f"{self._model_dir} may have been taken over by another run: {error}"
                    ) from error
        if self._taken_by is not None:
            raise CheckpointError(
                f"{self._model_dir} was taken over by {self._taken_by}, after this run had been "
                f"silent for {STALE_S:g} s; it writes nothing more"
            )

    def beat(self) -> None:
        """Says that the holder is there.

        Raises:
          StorageError: the bucket cannot be written.
        """
        with self._one_at_a_time:
            if self._taken_by is None:
                try:
                    self._generation = self._write(self._generation)
                    self._heard = time.monotonic()
                except conditional.ChangedError:
                    found = conditional.read(self._path)
                    self._taken_by = _name(_parse(found)) if found else "somebody who deleted it"

    def release(self) -> None:
        """Gives the model dir to whoever comes next."""
        self._end.set()
        self._thread.join()
        if self._taken_by is not None:
            return
        try:
            free = json.dumps({"free": self._owner}).encode()
            conditional.write(self._path, free, self._generation)
        except storage.StorageError as error:
            _log.warning("%s frees itself in %g s: %s", self._path, STALE_S, error)

    def _take(self) -> str:
        """Writes the object over one that nobody holds any more; returns its generation."""
        seen: str | None = None
        while True:
            found = conditional.read(self._path)
            if found is None or _is_free(found):
                try:
                    return self._write(found.generation if found else conditional.ABSENT)
                except conditional.ChangedError:
                    continue  # somebody was faster
            holder = _parse(found)
            renewed = seen is not None and seen != found.generation
            if renewed or _process(holder).machine == this_process().machine:
                raise CheckpointError(
                    f"{self._model_dir} is in use by {_name(holder)}; wait for it, or take a new "
                    "--model-dir"
                )
            if seen is None:
                _log.warning(
                    "%s: %s was there %.0f s ago; waiting for a sign of it, %.0f s at most",
                    *(self._model_dir, _name(holder), found.age, STALE_S - found.age),
                )
            seen = found.generation
            _pause(_LOOK_S)

    def _write(self, generation: str) -> str:
        self._beats += 1
        content = {
            "owner": self._owner,
            "process": this_process(),
            "host": platform.node(),
            "beat": self._beats,  # so that no two versions are equal
        }
        return conditional.write(self._path, json.dumps(content).encode(), generation)

    def _beat_on(self, every: float) -> None:
        while not self._end.wait(every) and self._taken_by is None:
            try:
                self.beat()
            except storage.StorageError as error:
                _log.warning("%s could not be renewed, tried again: %s", self._path, error)


def _is_free(found: conditional.Version) -> bool:
    """Whether nobody holds a model dir, or one who is gone or has been silent for too long."""
    holder = _parse(found)
    return "free" in holder or found.age >= STALE_S or is_gone(_process(holder))


def _parse(found: conditional.Version) -> dict[str, Any]:
    """Returns what a lease says; nothing if it is not one of ours."""
    try:
        content = json.loads(found.data)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _process(holder: dict[str, Any]) -> Process:
    try:
        machine, pid, started = holder["process"]
        return Process(str(machine), int(pid), str(started))
    except (KeyError, ValueError, TypeError):
        return Process("", 0, "")


def _name(holder: dict[str, Any]) -> str:
    if "process" not in holder:
        return "another process"
    return f"process {_process(holder).pid} on {holder.get('host', 'an unknown host')}"


def _pause(seconds: float) -> None:
    time.sleep(seconds)
