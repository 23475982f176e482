"""A folder that all processes must see alike."""

import logging
import os
import socket

import jax

from monolith_jax.distributed._exchange import from_all, from_primary, is_primary
from monolith_jax.errors import UserError

_log = logging.getLogger(__name__)


def check_shared(folder: str) -> None:
    """Raises unless every process sees the files that process 0 writes to `folder`.

    Args:
      folder: a model dir; made by process 0 if it is missing.

    Raises:
      UserError: names the hosts that do not see it.
    """
    if jax.process_count() == 1:
        return
    from monolith_jax import storage

    mark = storage.join(folder, f".run-{from_primary(os.urandom(8).hex())}")
    why: str | None = None
    if is_primary():
        try:
            storage.write_bytes(mark, b"")
        except (OSError, UserError) as error:
            why = str(error)
    why = from_primary(why)
    if why:
        raise UserError(f"model dir {folder}: process 0 cannot write there: {why}")
    try:
        found = storage.exists(mark)
    except (OSError, UserError) as error:
        _log.warning("%s: %s", mark, error)
        found = False
    seen = from_all((socket.gethostname(), found))
    if is_primary():
        try:
            storage.delete(mark)
        except (OSError, UserError) as error:  # a file too many is no reason to leave the others
            _log.warning("%s: %s", mark, error)
    blind = [f"process {i} ({host})" for i, (host, found) in enumerate(seen) if not found]
    if blind:
        raise UserError(
            f"model dir {folder} is local: {', '.join(blind)} cannot see what process 0 "
            f"({seen[0][0]}) writes there. On several hosts it must be in a bucket (gs://), or on "
            "a file system that all of them mount"
        )
