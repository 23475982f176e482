"""The keys and values of jax's coordination service, which carry the words of the processes."""

import itertools
from typing import Any

import jax

from monolith_jax.errors import UserError

EXCHANGE_SECONDS = 600.0
"""How long a word of another process is waited for; a host may still fetch its data."""

_counters: dict[str, "itertools.count[int]"] = {}


def client() -> Any:
    """Returns jax's client of the service; only in a run of several processes."""
    # The only way to the service's keys and values; orbax takes it too.
    from jax._src.distributed import global_state

    assert global_state.client is not None
    return global_state.client


def key(kind: str) -> str:
    """Returns a new key; the n-th call in one process is the n-th in every other."""
    return f"monolith_jax/{kind}/{next(_counters.setdefault(kind, itertools.count()))}"


def try_get(key: str) -> str | None:
    """Returns the value of a key, None if nobody has set it yet."""
    try:
        return str(client().key_value_try_get(key))
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def wait(key: str, process: int, seconds: float | None = None) -> str:
    """Returns the value of a key that another process sets, once it has.

    Args:
      key: as `key` made it.
      process: who sets it.
      seconds: how long it is waited for; default: `EXCHANGE_SECONDS`.

    Raises:
      UserError: it did not come; names both processes.
    """
    seconds = EXCHANGE_SECONDS if seconds is None else seconds
    try:
        return str(client().blocking_key_value_get(key, int(seconds * 1000)))
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"process {process} did not answer process {jax.process_index()} within "
            f"{seconds:g} s: {str(error).splitlines()[0]}; see its own message"
        ) from error
