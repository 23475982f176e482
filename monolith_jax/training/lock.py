"""Keeps two trainers out of one model dir.

The lock is the operating system's (`flock`), so a killed process leaves none behind. It holds where
the file system has such locks: local disks, NFS, Filestore. A bucket has none; there an object is
held, see `lease`.
"""

import contextlib
import errno
import fcntl
import logging
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from monolith_jax import distributed, storage
from monolith_jax.errors import CheckpointError
from monolith_jax.training.lease import Lease

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(model_dir: str) -> Iterator[Callable[[], None]]:
    """Holds `model_dir/.lock` while a run is in it; of several processes, process 0 does.

    Args:
      model_dir: a folder, made if it is missing, or gs://bucket/folder.

    Yields:
      A function that raises CheckpointError if the model dir is this run's no longer, which can
      happen to one in a bucket that could not be reached for some time.

    Raises:
      CheckpointError: another run holds it; the message names its process and host.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder, held(folder), held(folder):
      ...     pass
      Traceback (most recent call last):
      ...
      monolith_jax.errors.CheckpointError: ... is in use by process ... on ...
    """
    files: list[TextIO] = []
    leases: list[Lease] = []
    if storage.is_gs(model_dir):
        distributed.primary_only(lambda: leases.append(Lease(model_dir)))
    else:
        distributed.primary_only(lambda: files.append(_lock(Path(model_dir) / ".lock")))
    try:
        yield leases[0].check if leases else _still_held
    finally:
        for lease in leases:
            lease.release()
        for file in files:
            file.close()


def _still_held() -> None:
    """The operating system's lock cannot be lost; and of several processes, process 0 checks."""


def _lock(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise CheckpointError(f"{path.parent} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise CheckpointError(
            f"{path.parent} is in use by {holder}; wait for it, or take a new --model-dir"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            file.close()
            raise CheckpointError(f"{path} cannot be locked: {error}") from error
        _log.warning("%s: this file system has no locks; keep other trainers out", path.parent)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    return file
