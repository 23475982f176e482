"""Tables from one layout to another, on the devices, a few thousand lines at a time."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.embedding._init import slot_shape
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.config import TableConfig

CHUNK = 65_536
"""Lines moved at once: 32 MB of 128 float32 on each device, however large the table."""


def tables_as_stored(
    tables: Sequence[TableConfig], stored: Mapping[str, str]
) -> tuple[TableConfig, ...]:
    """Returns the tables with the `sharding` that a checkpoint has them in.

    Args:
      tables: as configured now.
      stored: by table, its `sharding` then; a table that is not there was dealt out by `mod`.

    Example:
      >>> table = TableConfig(name="user", vocab_size=943, dim=16, sharding="div")
      >>> [tables_as_stored([table], was)[0].sharding for was in ({}, {"user": "div"})]
      ['mod', 'div']
    """
    found = []
    for table in tables:
        sharding: Any = stored.get(table.name, "mod")
        same = sharding == table.sharding
        found.append(table if same else dataclasses.replace(table, sharding=sharding))
    return tuple(found)


def reshard(old: Sequence[Stack], new: Sequence[Stack], stacks: Any) -> Any:
    """Returns the arrays of `old` stacks laid out as `new` ones; to be jitted with its shardings.

    Both are of the same tables, which may differ in `sharding`. Rows move within the devices'
    memory, `CHUNK` lines at a time: beside the two states only that much is held. Each line
    crosses to every device, so that a table costs its own size in traffic per device, once.

    Args:
      old: the stacks that `stacks` has.
      new: those that are wanted.
      stacks: by stack, `{"value", "slots": {name}, "scalars": {name}}`.
    """
    whose = {table.name: stack for stack in old for table in stack.tables}
    found = {}
    for stack in new:
        # Tables of one rule advance their scalars together, whichever stack they are in.
        arrays = [stacks[whose[table.name].name] for table in stack.tables]
        value = jnp.zeros(stack.layout.shape, stack.dtype)
        slots = {
            slot.name: jnp.full(slot_shape(stack, slot), slot.init, jnp.float32)
            for slot in stack.rule.slots
        }
        for table, given in zip(stack.tables, arrays, strict=True):
            source = whose[table.name]
            value = _moved(given["value"], source, value, stack, table.name)
            for name, slot in slots.items():
                slots[name] = _moved(given["slots"][name], source, slot, stack, table.name)
        found[stack.name] = {"value": value, "slots": slots, "scalars": arrays[0]["scalars"]}
    return found


def _moved(array: jax.Array, old: Stack, into: jax.Array, new: Stack, name: str) -> jax.Array:
    """Returns `into` with one table's lines of `array`; both lines of rows, or one number a row."""
    table, source = old.table(name)
    _, target = new.table(name)
    pack = new.layout.pack
    lines = -(-table.vocab_size // pack)
    shape = into.shape
    if array.ndim == 1:
        array, into = array.reshape(-1, pack), into.reshape(-1, pack)
    first, goal = jnp.uint32(source // pack), jnp.uint32(target // pack)

    def some(i: jax.Array, into: jax.Array) -> jax.Array:
        nth = i.astype(jnp.uint32) * jnp.uint32(CHUNK) + jnp.arange(CHUNK, dtype=jnp.uint32)
        held = jnp.minimum(nth, jnp.uint32(lines - 1))
        moving = array[old.layout.physical_line(first + held)]
        beyond = jnp.uint32(into.shape[0])
        place = jnp.where(nth < lines, new.layout.physical_line(goal + held), beyond)
        return into.at[place].set(moving, mode="drop")

    return jax.lax.fori_loop(0, -(-lines // CHUNK), some, into).reshape(shape)
