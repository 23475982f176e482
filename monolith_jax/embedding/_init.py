"""The first values of a stack: made where they will live, the same on any number of devices."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.embedding._placement import EVERYWHERE, Placement
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.config import Constant, Initializer, Normal, TableConfig, Uniform
from monolith_jax.embedding.engine import State
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import Slot


def init_saved(stacks: Iterable[Stack], placement: Placement, shards: int, key: jax.Array) -> State:
    """Returns the state before the first step as checkpoints have it; to be jitted.

    Args:
      stacks: the tables.
      placement: the devices.
      shards: virtual shards, over all devices.
      key: of all values.
    """
    made = {}
    for i, stack in enumerate(stacks):
        make = partial(_init_values, stack, placement, shards // placement.devices)
        value = placement.split(make, (EVERYWHERE,))(jax.random.fold_in(key, i))
        made[stack.name] = {
            "value": value,
            "slots": init_slots(stack),
            "scalars": as_float32(stack.rule.scalars),
        }
    return {"step": jnp.zeros((), jnp.int32), "stacks": made}


def _init_values(stack: Stack, placement: Placement, shards: int, key: jax.Array) -> jax.Array:
    """Returns one device's block of values, of `shards` virtual shards."""
    return init_block(stack, key, placement.index() * shards, shards)


def init_block(stack: Stack, key: jax.Array, first_shard: Any, shards: int) -> jax.Array:
    """Returns the lines of some consecutive virtual shards, [shards * lines_per_shard, line_width].

    Shard v draws from `fold_in(key, v)`: what it holds depends on nothing else. One shard is made
    at a time, so that no more than the result and one shard is in memory.

    Args:
      stack: the tables.
      key: of the stack.
      first_shard: int32 [], may be traced.
      shards: how many.
    """
    layout = stack.layout
    size = layout.lines_per_shard

    def body(i: jax.Array, block: jax.Array) -> jax.Array:
        made = _shard(stack, key, first_shard + i)
        return jax.lax.dynamic_update_slice(
            block, made.astype(block.dtype), (i * size, jnp.zeros((), i.dtype))
        )

    block = jnp.zeros((shards * size, layout.line_width), stack.dtype)
    return jax.lax.fori_loop(0, shards, body, block)


def _shard(stack: Stack, key: jax.Array, shard: jax.Array) -> jax.Array:
    """Returns one virtual shard, [lines_per_shard, line_width]; zero where no row lives."""
    layout = stack.layout
    shape = (layout.lines_per_shard, layout.line_width)
    nth = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    lane = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    line = layout.logical_line(shard.astype(jnp.int32) * jnp.int32(layout.lines_per_shard) + nth)
    row = line * layout.pack + lane // layout.width
    inside = lane % layout.width < layout.dim
    kinds: dict[Initializer, list[tuple[TableConfig, int]]] = {}
    for table, offset in zip(stack.tables, stack.offsets, strict=True):
        kinds.setdefault(table.initializer, []).append((table, offset))
    values = jnp.zeros(shape, jnp.float32)
    for kind, tables in kinds.items():
        mine = jnp.zeros(shape, bool)
        for table, offset in tables:
            mine |= (row >= offset) & (row < offset + table.vocab_size)
        values = jnp.where(
            mine & inside, _draw(kind, jax.random.fold_in(key, shard), shape), values
        )
    return values


def _draw(kind: Initializer, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    if isinstance(kind, Normal):
        return jax.random.normal(key, shape, jnp.float32) * jnp.float32(kind.stddev)
    if isinstance(kind, Uniform):
        return jax.random.uniform(key, shape, jnp.float32, -kind.scale, kind.scale)
    if isinstance(kind, Constant):
        return jnp.full(shape, kind.value, jnp.float32)
    raise ConfigError(f"unknown initializer {kind!r}: valid are {', '.join(Initializer.choices())}")


def slot_shape(stack: Stack, slot: Slot) -> tuple[int, ...]:
    """Returns the shape of a slot's array beside the stack's values."""
    return (stack.layout.physical_rows,) if slot.per_row else stack.layout.shape


def init_slots(stack: Stack) -> dict[str, jax.Array]:
    """Returns the slots before the first step."""
    return {
        slot.name: jnp.full(slot_shape(stack, slot), slot.init, jnp.float32)
        for slot in stack.rule.slots
    }


def stack_shapes(stack: Stack) -> Any:
    """Returns the shapes and dtypes of a stack's values, slots and scalars."""
    shape = jax.ShapeDtypeStruct
    return {
        "value": shape(stack.layout.shape, stack.dtype),
        "slots": {
            slot.name: shape(slot_shape(stack, slot), jnp.float32) for slot in stack.rule.slots
        },
        "scalars": {name: shape((), jnp.float32) for name in stack.rule.scalars},
    }


def saved_shapes(stacks: Iterable[Stack]) -> State:
    """Returns the shapes and dtypes of what checkpoints have."""
    return {
        "step": jax.ShapeDtypeStruct((), jnp.int32),
        "stacks": {stack.name: stack_shapes(stack) for stack in stacks},
    }


def state_shardings(stacks: Iterable[Stack], split: Any, everywhere: Any) -> Any:
    """Returns the state's shardings: `split` for tables and slots, `everywhere` for numbers."""
    return {
        "step": everywhere,
        "stacks": {
            stack.name: {
                "value": split,
                "slots": {slot.name: split for slot in stack.rule.slots},
                "scalars": dict.fromkeys(stack.rule.scalars, everywhere),
            }
            for stack in stacks
        },
    }


def as_float32(scalars: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns a rule's scalars as arrays, in TF's dtype."""
    return {name: jnp.asarray(value, jnp.float32) for name, value in scalars.items()}
