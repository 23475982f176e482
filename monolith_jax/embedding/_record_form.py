"""A state of records as checkpoints have it, and back: value and slots in arrays of their own."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.embedding._init import stack_shapes
from monolith_jax.embedding._placement import BY_ROW, Placement
from monolith_jax.embedding._records import Place, Record
from monolith_jax.embedding.engine import State


class RecordForm:
    """Converts states; no bit of a row or slot changes, and what is in no record stays as it is.

    The arrays of one record are converted at a time, those of a virtual shard after the other.

    Args:
      records: by the lead's name.
      placement: the devices.
    """

    def __init__(self, records: Mapping[str, Record], placement: Placement) -> None:
        self._records = records
        split, where = placement.split, {"out_shardings": placement.by_row}
        self._pack = {
            name: jax.jit(split(partial(_packed, record), (BY_ROW,)), **where)
            for name, record in records.items()
        }
        self._unpack = {
            name: jax.jit(split(partial(_unpacked, record, placement.devices), (BY_ROW,)), **where)
            for name, record in records.items()
        }

    def replaced(self, saved: Any, make: Callable[[str, Any], Any]) -> Any:
        """Returns a tree like a saved state's with one leaf for each record; some may be there.

        Args:
          saved: `{"step", "stacks": {stack: {"value", "slots", "scalars"}}}`, of any leaves.
          make: the leaf, from the record's name and `{stack: {"value", "slots"}}`.
        """
        stacks = dict(saved["stacks"])
        for name, record in self._records.items():
            if "records" in stacks[name]:
                continue
            parts = {stack.name: dict(stacks[stack.name]) for stack in record.stacks}
            for member, arrays in parts.items():
                stacks[member] = {"scalars": arrays.pop("scalars")}
            stacks[name]["records"] = make(name, parts)
        return {**saved, "stacks": stacks}

    def from_saved(self, saved: State) -> State:
        """Returns the state of a checkpoint's; what `to_saved` has not converted stays."""
        state: State = self.replaced(saved, lambda name, parts: self._pack[name](parts))
        return state

    def to_saved(self, state: State, table: str = "") -> State:
        """Returns the state as checkpoints have it.

        Args:
          state: of records.
          table: convert only what has this table; empty: everything.
        """
        stacks = dict(state["stacks"])
        for name, record in self._records.items():
            if table and table not in record.tables:
                continue
            for member, parts in self._unpack[name](stacks[name]["records"]).items():
                stacks[member] = {**parts, "scalars": stacks[member]["scalars"]}
        return {**state, "stacks": stacks}


def _packed(record: Record, arrays: Any) -> jax.Array:
    """Returns a device's block of records, from its blocks of values and slots."""
    rows, shards = _shards(record, arrays[record.name]["value"].shape[0], record.lead.layout.pack)

    def some(i: jax.Array, block: jax.Array) -> jax.Array:
        def part(array: jax.Array, place: Place) -> jax.Array:
            size = array.shape[0] // shards
            mine = jax.lax.dynamic_slice_in_dim(array, i * size, size)
            return mine.reshape(rows, -1)[:, : place.lanes]

        made = record.join(jax.tree.map(part, arrays, record.places))
        return jax.lax.dynamic_update_slice_in_dim(block, made, i * rows, 0)

    block = jnp.zeros((shards * rows, record.width), jnp.float32)
    return jax.lax.fori_loop(0, shards, some, block)


def _unpacked(record: Record, devices: int, block: jax.Array) -> Any:
    """Returns a device's blocks of values and slots, with the padding they start with."""
    rows, shards = _shards(record, block.shape[0], 1)

    def some(i: jax.Array, arrays: Any) -> Any:
        made = record.split(jax.lax.dynamic_slice_in_dim(block, i * rows, rows))

        def put(array: jax.Array, part: jax.Array, place: Place) -> jax.Array:
            size = array.shape[0] // shards
            behind = array.size // (shards * rows) - place.lanes
            wide = jnp.pad(part, ((0, 0), (0, behind)), constant_values=place.fill)
            mine = wide.reshape(size, *array.shape[1:])
            return jax.lax.dynamic_update_slice_in_dim(array, mine, i * size, 0)

        return jax.tree.map(put, arrays, made, record.places)

    def blank(shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros((shape.shape[0] // devices, *shape.shape[1:]), shape.dtype)

    arrays = {stack.name: stack_shapes(stack) for stack in record.stacks}
    for parts in arrays.values():
        del parts["scalars"]
    return jax.lax.fori_loop(0, shards, some, jax.tree.map(blank, arrays))


def _shards(record: Record, units: int, rows: int) -> tuple[int, int]:
    """Returns the rows of a virtual shard, and the shards of a block of `units` of `rows` each."""
    layout = record.lead.layout
    per_shard = layout.lines_per_shard * layout.pack
    return per_shard, units * rows // per_shard
