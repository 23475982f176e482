"""Words that the processes exchange: from process 0 to all, and from all to all."""

import json
from typing import TypeVar

import jax

from monolith_jax.distributed import _service

T = TypeVar("T")


def is_primary() -> bool:
    """Whether this process writes files and lines: process 0, or the only one."""
    return jax.process_index() == 0


def from_primary(value: T) -> T:
    """Returns process 0's value, anything JSON can hold; all processes must call it alike."""
    if jax.process_count() == 1:
        return value
    key = _service.key("primary")
    if is_primary():
        _service.client().key_value_set(key, json.dumps(value))
        return value
    found: T = json.loads(_service.wait(key, 0))
    return found


def from_all(value: T, channel: str = "all", seconds: float | None = None) -> list[T]:
    """Returns every process's value, in their order; all processes must call it alike.

    Args:
      value: anything JSON can hold.
      channel: a thread beside the main one takes one of its own, so that the words of the two are
        not taken for each other.
      seconds: how long the others are waited for; default: 600.

    Raises:
      UserError: one did not answer.
    """
    if jax.process_count() == 1:
        return [value]
    key = _service.key(channel)
    _service.client().key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    return [json.loads(_service.wait(f"{key}/{i}", i, seconds)) for i in range(jax.process_count())]
