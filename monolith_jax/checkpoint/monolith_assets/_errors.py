"""Errors that say which file, which table and which byte."""

import contextlib
from collections.abc import Callable, Iterator

from monolith_jax import storage
from monolith_jax.checkpoint.tf._wire import Malformed
from monolith_jax.errors import CheckpointError


@contextlib.contextmanager
def blame(file: str, table: str = "", where: Callable[[], str] | None = None) -> Iterator[None]:
    """Turns what reading may raise into a CheckpointError that names file, table and place.

    Args:
      file: the path.
      table: the table, "" if it is the whole file's trouble.
      where: called for the place in the file, once it is needed.
    """
    try:
        yield
    except (Malformed, storage.StorageError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and not isinstance(error, storage.StorageError):
            reason = error.strerror or reason
        head = f"{file}: table {table!r}" if table else file
        place = f" {where()}" if where and isinstance(error, Malformed) else ""
        raise CheckpointError(f"{head}{place}: {reason}") from error
