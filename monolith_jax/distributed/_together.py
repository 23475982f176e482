"""Work that succeeds in all processes, or fails in all."""

from collections.abc import Callable
from typing import TypeVar

import jax

from monolith_jax.distributed._exchange import from_all, is_primary
from monolith_jax.errors import UserError

T = TypeVar("T")


def all_or_none(make: Callable[[], T], channel: str, seconds: float | None = None) -> T:
    """Calls `make` in every process and waits for all; if it fails in one, it fails in all.

    Arguments are those of `from_all`.

    Raises:
      UserError: what failed in another process, with its number. What fails in this one is
        raised as it is.

    Example:
      >>> all_or_none(lambda: 3, "doctest")  # one process
      3
    """
    if jax.process_count() == 1:
        return make()
    result, raised = None, None
    try:
        result = make()
    except Exception as error:  # whatever it is, the others must not wait for this process
        raised = error
    mine = None if raised is None else f"process {jax.process_index()}: {raised}"
    failed = next((why for why in from_all(mine, channel, seconds) if why), None)
    if raised is not None:
        raise raised
    if failed:
        raise UserError(failed)
    return result  # type: ignore[return-value]


def primary_first(make: Callable[[], T]) -> T:
    """Returns `make()`, called by process 0 before the others.

    What it puts on a shared disk is found there by them. If it fails in one, it fails in all.
    """
    if jax.process_count() == 1:
        return make()
    failed: str | None = None
    result, raised = None, None
    for mine in (True, False):
        if is_primary() == mine and not failed:
            try:
                result = make()
            except Exception as error:  # whatever it is, the others must not wait for this process
                failed = f"process {jax.process_index()}: {error}"
                raised = None if isinstance(error, UserError) else error
        failed = next((why for why in from_all(failed) if why), None)
    if raised is not None:
        raise raised
    if failed:
        raise UserError(failed)
    return result  # type: ignore[return-value]


def primary_only(make: Callable[[], object]) -> None:
    """Calls `make` in process 0; the others wait. If it fails there, it fails in all."""
    primary_first(lambda: make() if is_primary() else None)
