"""Rows of a table by their ids, out of the packed arrays and back in; on the host."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from monolith_jax.embedding._placement import place, whole
from monolith_jax.embedding._stacks import Stack
from monolith_jax.errors import ConfigError, did_you_mean


def table_rows(
    stacks: Sequence[Stack], state: Any, table: str, start: int, stop: int | None
) -> np.ndarray:
    """Returns rows `start` to `stop` (None: the last) of a table, [n, dim]."""
    stack = _stack_of(stacks, table)
    return _read(stack, state["stacks"][stack.name]["value"], table, start, stop)


def table_slots(
    stacks: Sequence[Stack], state: Any, table: str, start: int, stop: int | None
) -> dict[str, np.ndarray]:
    """Returns the slots of rows `start` to `stop`, by name, [n, dim], or [n, 1] if per row."""
    stack = _stack_of(stacks, table)
    slots = state["stacks"][stack.name]["slots"]
    return {name: _read(stack, slot, table, start, stop) for name, slot in slots.items()}


def with_table(
    stacks: Sequence[Stack],
    state: Any,
    table: str,
    rows: np.ndarray | None,
    slots: Mapping[str, np.ndarray],
    start: int,
    sharding: Any,
) -> Any:
    """Returns the state with rows or slots of a table replaced from `start` on."""
    stack = _stack_of(stacks, table)
    old = state["stacks"][stack.name]
    new = {**old, "slots": dict(old["slots"])}
    if rows is not None:
        new["value"] = _write(stack, old["value"], table, start, rows, sharding)
    for name, values in slots.items():
        if name not in old["slots"]:
            raise ConfigError(
                f"table {table!r} has no slot {name!r}: {did_you_mean(name, old['slots'])}"
            )
        new["slots"][name] = _write(stack, old["slots"][name], table, start, values, sharding)
    return {**state, "stacks": {**state["stacks"], stack.name: new}}


def _stack_of(stacks: Sequence[Stack], table: str) -> Stack:
    names = {member.name: stack for stack in stacks for member in stack.tables}
    if table not in names:
        raise ConfigError(f"no table named {table!r}: {did_you_mean(table, names)}")
    return names[table]


def _width(stack: Stack, array: jax.Array) -> int:
    """Returns the elements of a row in an array: 1 in a slot that has one number per row."""
    return stack.layout.dim if array.ndim == 2 else 1


def _read(stack: Stack, array: jax.Array, table: str, start: int, stop: int | None) -> np.ndarray:
    rows = _physical(stack, table, start, stop)
    packed = whole(array).reshape(stack.layout.physical_rows, -1)
    return packed[rows, : _width(stack, array)].astype(np.float32, copy=False)


def _write(
    stack: Stack, array: jax.Array, table: str, start: int, new: np.ndarray, sharding: Any
) -> jax.Array:
    new, width = np.asarray(new), _width(stack, array)
    if new.ndim != 2 or new.shape[1] != width:
        raise ConfigError(f"table {table!r}: got values {new.shape}, expected [n, {width}]")
    rows = _physical(stack, table, start, start + len(new))
    copy = np.array(whole(array))
    copy.reshape(stack.layout.physical_rows, -1)[rows, :width] = new
    return place(copy, sharding)


def _physical(stack: Stack, table: str, start: int, stop: int | None) -> np.ndarray:
    config, offset = stack.table(table)
    stop = config.vocab_size if stop is None else stop
    if not 0 <= start <= stop <= config.vocab_size:
        raise ConfigError(
            f"rows {start} to {stop} of table {table!r}, which has {config.vocab_size}"
        )
    return stack.layout.physical(np.arange(offset + start, offset + stop))
