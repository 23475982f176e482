"""Rows of a table by their ids, out of the packed array and back in; on the host."""

from typing import Any

import jax
import numpy as np

from monolith_jax.embedding._stacks import Stack
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import Slot


def read_values(
    stack: Stack, array: jax.Array, table: str, start: int, stop: int | None
) -> np.ndarray:
    """Returns rows `start` to `stop` of a table from an array shaped like the values, [n, dim]."""
    rows = _physical(stack, table, start, stop)
    packed = np.asarray(array).reshape(-1, stack.layout.width)
    return packed[rows, : stack.layout.dim]


def read_slot(
    stack: Stack, slot: Slot, array: jax.Array, table: str, start: int, stop: int | None
) -> np.ndarray:
    """Returns a slot of rows `start` to `stop`, [n, dim], or [n, 1] if it is one per row."""
    if slot.per_row:
        return np.asarray(array)[_physical(stack, table, start, stop), None]
    return read_values(stack, array, table, start, stop)


def write_values(
    stack: Stack, array: jax.Array, table: str, start: int, new: np.ndarray, sharding: Any
) -> jax.Array:
    """Returns a new array with rows of a table from `start` on replaced by `new` [n, dim]."""
    return _write(stack, array, table, start, new, stack.layout.dim, sharding)


def write_slot(
    stack: Stack,
    slot: Slot,
    array: jax.Array,
    table: str,
    start: int,
    new: np.ndarray,
    sharding: Any,
) -> jax.Array:
    """Returns a new slot array with the slots of rows from `start` on replaced by `new`."""
    width = 1 if slot.per_row else stack.layout.dim
    return _write(stack, array, table, start, new, width, sharding)


def _write(
    stack: Stack,
    array: jax.Array,
    table: str,
    start: int,
    new: np.ndarray,
    width: int,
    sharding: Any,
) -> jax.Array:
    new = np.asarray(new)
    if new.ndim != 2 or new.shape[1] != width:
        raise ConfigError(f"table {table!r}: got values {new.shape}, expected [n, {width}]")
    rows = _physical(stack, table, start, start + len(new))
    copy = np.array(array)
    copy.reshape(stack.layout.physical_rows, -1)[rows, :width] = new
    return jax.device_put(copy, sharding)


def _physical(stack: Stack, table: str, start: int, stop: int | None) -> np.ndarray:
    config, offset = stack.table(table)
    stop = config.vocab_size if stop is None else stop
    if not 0 <= start <= stop <= config.vocab_size:
        raise ConfigError(
            f"rows {start} to {stop} of table {table!r}, which has {config.vocab_size}"
        )
    return stack.layout.physical(np.arange(offset + start, offset + stop))
