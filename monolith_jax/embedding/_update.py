"""One step of a rule on the touched rows of one device's block."""

from typing import Any

import jax

from monolith_jax.embedding._access import (
    add_rows,
    read_per_row,
    read_rows,
    write_per_row,
    write_rows,
)
from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._stacks import Stack
from monolith_jax.optimizers import Slot

Arrays = dict[str, jax.Array]


def update_block(
    stack: Stack,
    value: jax.Array,
    slots: Arrays,
    scalars: dict[str, Any],
    step: jax.Array,
    lookups: StackLookups,
    rows: jax.Array,
    gradient: jax.Array,
) -> tuple[jax.Array, Arrays]:
    """Returns the block and its slots after one step.

    Args:
      stack: the tables.
      value: [lines, line_width], this device's block.
      slots: by name, shaped like `value`, or [rows of the block] for one number per row.
      scalars: the rule's scalars of this step.
      step: int32 [], updates made before.
      lookups: this device's part.
      rows: [U, dim], the values as gathered.
      gradient: [U, dim], summed over duplicates.
    """
    rule = stack.rule
    if rule.touches_all_rows:
        return _update_all(stack, value, slots, scalars, step, lookups, gradient)
    old = {slot.name: _read(slot, slots, lookups, stack) for slot in rule.slots}
    delta, new = rule.update(gradient, rows, old, scalars, step, rows=True)
    value = write_rows(value, lookups, stack.layout, rows + delta)
    return value, {slot.name: _write(slot, slots, lookups, stack, new) for slot in rule.slots}


def _update_all(
    stack: Stack,
    value: jax.Array,
    slots: Arrays,
    scalars: dict[str, Any],
    step: jax.Array,
    lookups: StackLookups,
    gradient: jax.Array,
) -> tuple[jax.Array, Arrays]:
    """TF's Adam: every row decays, the touched ones gain, every row moves; the whole table's cost.

    Padding lanes and rows have slots of zero, so that they neither gain nor move.
    """
    rule: Any = stack.rule
    slots = rule.decay_all(slots, step)
    gain = rule.additions(gradient, step)
    slots = {
        name: add_rows(slots[name], lookups, stack.layout, more) for name, more in gain.items()
    }
    return value + rule.move_all(value, slots, scalars, step), slots


def _read(slot: Slot, slots: Arrays, lookups: StackLookups, stack: Stack) -> jax.Array:
    # The padding reads the slot's first value: zeros could make a rule divide by zero there.
    if slot.per_row:
        return read_per_row(slots[slot.name], lookups, slot.init)
    return read_rows(slots[slot.name], lookups, stack.layout, slot.init)


def _write(
    slot: Slot, slots: Arrays, lookups: StackLookups, stack: Stack, new: Arrays
) -> jax.Array:
    if slot.per_row:
        return write_per_row(slots[slot.name], lookups, new[slot.name])
    return write_rows(slots[slot.name], lookups, stack.layout, new[slot.name])
