"""One step of a rule on the touched rows of one device's block."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from monolith_jax.embedding._access import (
    add_rows,
    read_per_row,
    read_rows,
    write_per_row,
    write_rows,
)
from monolith_jax.embedding._formula import numbers_of
from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._reach import Reach
from monolith_jax.embedding._rounding import random_bits, stochastic_round
from monolith_jax.embedding._stacks import Stack

Arrays = dict[str, jax.Array]


@dataclass(frozen=True)
class Rounding:
    """How new values of bfloat16 tables are rounded in this step, on this device.

    Attributes:
      key: uint32 [2], from `step_key`.
      first: int32 [], the block's first physical row.
    """

    key: jax.Array
    first: jax.Array

    def touched(self, new: jax.Array, lookups: StackLookups) -> jax.Array:
        """Rounds the touched rows, [U, dim] float32."""
        row = (lookups.rows + self.first)[:, None]
        element = jax.lax.broadcasted_iota(jnp.int32, (1, new.shape[1]), 1)
        return stochastic_round(new, random_bits(self.key, row, element))

    def everywhere(self, new: jax.Array, width: int) -> jax.Array:
        """Rounds a whole block, [lines, line_width] float32, of rows `width` wide."""
        line = jax.lax.broadcasted_iota(jnp.int32, new.shape, 0)
        lane = jax.lax.broadcasted_iota(jnp.int32, new.shape, 1)
        row = self.first + line * (new.shape[1] // width) + lane // width
        return stochastic_round(new, random_bits(self.key, row, lane % width))


class Touched(NamedTuple):
    """What a step knows of one device's block of a stack.

    Attributes:
      value: [lines, line_width], the block.
      slots: by name, shaped like `value`, or [rows of the block] for one number per row.
      scalars: the rule's scalars of this step.
      step: int32 [], updates made before.
      lookups: this device's part.
      rows: [U, dim], the values as gathered.
      gradient: [U, dim], summed over duplicates.
    """

    value: jax.Array
    slots: Arrays
    scalars: dict[str, Any]
    step: jax.Array
    lookups: StackLookups
    rows: jax.Array
    gradient: jax.Array


def update_block(
    stack: Stack, reach: Reach, block: Touched, rounding: Rounding | None = None
) -> tuple[jax.Array, Arrays]:
    """Returns the block and its slots after one step.

    Args:
      stack: the tables.
      reach: how the backend reaches their rows.
      block: their arrays and what a batch wants of them.
      rounding: for tables of bfloat16; None: they are float32.
    """
    if stack.rule.touches_all_rows:
        return _update_all(stack, reach, block, rounding)
    if reach.ahead and rounding is None and block.value.dtype == jnp.float32:
        from monolith_jax.embedding._cpu.updating import target_of

        if target := target_of(stack.rule, stack.layout.dim, stack.layout.width):
            return _in_one_go(stack, reach, target, block)
    return _in_steps(stack, reach, rounding, block)


def _in_steps(
    stack: Stack, reach: Reach, rounding: Rounding | None, block: Touched
) -> tuple[jax.Array, Arrays]:
    """`update_block` for the touched rows: slots are read, all is computed, all is written."""
    value, slots, scalars, step, lookups, rows, gradient = block
    old = _read(stack, reach, slots, lookups)
    delta, new = stack.rule.update(gradient, rows, old, scalars, step, rows=True)
    moved = rows + delta
    if rounding is not None:
        moved = rounding.touched(moved, lookups)
    return _write(stack, reach, value, slots, lookups, moved, new)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _in_one_go(stack: Stack, reach: Reach, target: str, block: Touched) -> tuple[jax.Array, Arrays]:
    """`update_block` by a kernel, which reads the rows again where it changes them."""
    from monolith_jax.embedding._cpu.updating import update

    wide = [slot.name for slot in stack.rule.slots if not slot.per_row]
    narrow = [slot.name for slot in stack.rule.slots if slot.per_row]
    (value, *moved), numbers = update(
        target,
        [block.value, *(block.slots[name] for name in wide)],
        [block.slots[name] for name in narrow],
        block.lookups.rows,
        block.gradient,
        numbers_of(stack.rule, block.scalars, block.step),
        stack.layout.width,
    )
    return value, dict(zip(wide + narrow, (*moved, *numbers), strict=True))


@_in_one_go.defjvp
def _in_one_go_jvp(
    stack: Stack, reach: Reach, target: str, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Any, Any]:
    return jax.jvp(partial(_in_steps, stack, reach, None), primals, tangents)


def _update_all(
    stack: Stack, reach: Reach, block: Touched, rounding: Rounding | None
) -> tuple[jax.Array, Arrays]:
    """TF's Adam: every row decays, the touched ones gain, every row moves; the whole table's cost.

    Padding lanes and rows have slots of zero, so that they neither gain nor move.
    """
    rule: Any = stack.rule
    value, slots, scalars, step, lookups, _, gradient = block
    slots = rule.decay_all(slots, step)
    gain = rule.additions(gradient, step)
    slots = {
        name: add_rows(slots[name], lookups, stack.layout, reach, more)
        for name, more in gain.items()
    }
    if rounding is None:
        return value + rule.move_all(value, slots, scalars, step), slots
    wide = value.astype(jnp.float32)
    moved = wide + rule.move_all(wide, slots, scalars, step)
    return rounding.everywhere(moved, stack.layout.width), slots


def _read(stack: Stack, reach: Reach, slots: Arrays, lookups: StackLookups) -> Arrays:
    """Returns the touched rows' slots, by name.

    The padding reads the slot's first value, or another row's: 0 could make a rule divide by it.
    """
    wide = [slot for slot in stack.rule.slots if not slot.per_row]
    found = read_rows(
        [slots[slot.name] for slot in wide],
        lookups,
        stack.layout,
        reach,
        [slot.init for slot in wide],
    )
    old = {slot.name: rows for slot, rows in zip(wide, found, strict=True)}
    for slot in stack.rule.slots:
        if slot.per_row:
            old[slot.name] = read_per_row(slots[slot.name], lookups)
    return old


def _write(
    stack: Stack,
    reach: Reach,
    value: jax.Array,
    slots: Arrays,
    lookups: StackLookups,
    moved: jax.Array,
    new: Arrays,
) -> tuple[jax.Array, Arrays]:
    """Returns the block and its slots with the touched rows replaced."""
    wide = [slot.name for slot in stack.rule.slots if not slot.per_row]
    value, *written = write_rows(
        [value, *(slots[name] for name in wide)],
        lookups,
        stack.layout,
        reach,
        [moved, *(new[name] for name in wide)],
    )
    found = dict(zip(wide, written, strict=True))
    for slot in stack.rule.slots:
        if slot.per_row:
            found[slot.name] = write_per_row(slots[slot.name], lookups, new[slot.name])
    return value, found
