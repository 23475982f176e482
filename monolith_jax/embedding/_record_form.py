"""A state of records as checkpoints have it, and back: value and slots in arrays of their own."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.embedding._init import stack_shapes
from monolith_jax.embedding._placement import BY_ROW, Placement
from monolith_jax.embedding._records import Place, Record
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.engine import State

CHUNK = 524_288
"""Biases moved at once from one order of rows to another: 2 MB on each device."""


class RecordForm:
    """Converts states; no bit of a row or slot changes, and what is in no record stays as it is.

    The arrays of one record are converted at a time, those of a virtual shard after the other, on
    each device by itself. Only biases cross between devices: in checkpoints they are packed, and
    dealt out, by lines of 128 rows of their own.

    Args:
      records: by the lead's name.
      placement: the devices.
    """

    def __init__(self, records: Mapping[str, Record], placement: Placement) -> None:
        self._records = records
        where = placement.by_row
        self._pack, self._unpack = (
            {
                name: jax.jit(partial(convert, record, placement), out_shardings=where)
                for name, record in records.items()
            }
            for convert in (_pack, _unpack)
        )

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


def _pack(record: Record, placement: Placement, arrays: Any) -> jax.Array:
    """Returns all devices' records, from `{stack: {"value", "slots"}}` as checkpoints have them."""
    given = dict(arrays)
    for bias in record.biases:
        move = partial(_moved, bias, record.lead)
        given[bias.name] = jax.tree.map(move, arrays[bias.name], record.places[bias.name])
    made: jax.Array = placement.split(partial(_packed, record), (BY_ROW,))(given)
    return made


def _unpack(record: Record, placement: Placement, records: jax.Array) -> Any:
    """Returns `{stack: {"value", "slots"}}` as checkpoints have them, the inverse of `_pack`."""
    unpacked = placement.split(partial(_unpacked, record, placement.devices), (BY_ROW,))
    found = dict(unpacked(records))
    for bias in record.biases:
        move = partial(_moved, record.lead, bias)
        numbers = jax.tree.map(move, found[bias.name], record.places[bias.name])
        shaped = jax.tree.map(lambda x, like: x.reshape(like.shape), numbers, _shapes(bias))
        found[bias.name] = shaped
    return found


def _moved(old: Stack, new: Stack, array: jax.Array, place: Place) -> jax.Array:
    """Returns numbers of one stack's rows, in its order, in the order of a stack of equal tables.

    Args:
      old: whose physical rows `array` has, one number each.
      new: whose physical rows are wanted, [rows].
      array: of any shape.
      place: says what stands where no row is.
    """
    array = array.reshape(-1)
    into = jnp.full(new.layout.physical_rows, place.fill, jnp.float32)
    for table, first, goal in zip(old.tables, old.offsets, new.offsets, strict=True):
        some = partial(_moved_some, array, old, new, table.vocab_size, first, goal)
        into = jax.lax.fori_loop(0, -(-table.vocab_size // CHUNK), some, into)
    return into


def _moved_some(
    array: jax.Array,
    old: Stack,
    new: Stack,
    size: int,
    first: int,
    goal: int,
    i: jax.Array,
    into: jax.Array,
) -> jax.Array:
    """Returns `into` with the numbers of `CHUNK` rows of a table of `size`, the i-th such part."""
    row = i.astype(jnp.uint32) * jnp.uint32(CHUNK) + jnp.arange(CHUNK, dtype=jnp.uint32)
    there = row < jnp.uint32(size)
    row = jnp.where(there, row, jnp.uint32(0))
    moving = array[old.layout.physical(row + jnp.uint32(first))]
    beyond = jnp.uint32(new.layout.physical_rows)
    where = jnp.where(there, new.layout.physical(row + jnp.uint32(goal)), beyond)
    return into.at[where].set(moving, mode="drop")


def _shapes(stack: Stack) -> Any:
    """Returns the shapes of a stack's values and slots in checkpoints."""
    shapes = dict(stack_shapes(stack))
    del shapes["scalars"]
    return shapes


def _packed(record: Record, arrays: Any) -> jax.Array:
    """Returns a device's block of records, from those of values and slots; a bias's are [rows]."""
    rows, shards = _shards(record, arrays[record.name]["value"].shape[0], record.lead.layout.pack)

    def some(i: jax.Array, block: jax.Array) -> jax.Array:
        def part(array: jax.Array, place: Place) -> jax.Array:
            size = array.shape[0] // shards
            mine = jax.lax.dynamic_slice_in_dim(array, i * size, size)
            return mine.reshape(rows, -1)[:, : place.lanes]

        made = record.join(jax.tree.map(part, arrays, record.places))
        made = _wide(made, layout.width, 0.0).reshape(-1, layout.line_width)
        return jax.lax.dynamic_update_slice_in_dim(block, made, i * made.shape[0], 0)

    layout = record.layout
    block = jnp.zeros((shards * rows // layout.pack, layout.line_width), jnp.float32)
    return jax.lax.fori_loop(0, shards, some, block)


def _unpacked(record: Record, devices: int, block: jax.Array) -> Any:
    """Returns a device's blocks of values and slots, padded as at first; a bias's are [rows]."""
    layout = record.layout
    rows, shards = _shards(record, block.shape[0], layout.pack)
    lines = rows // layout.pack

    def some(i: jax.Array, arrays: Any) -> Any:
        mine = jax.lax.dynamic_slice_in_dim(block, i * lines, lines)
        made = record.split(mine.reshape(rows, layout.width))

        def put(array: jax.Array, part: jax.Array, place: Place) -> jax.Array:
            size = array.shape[0] // shards
            wide = _wide(part, array.size // (shards * rows), place.fill)
            return jax.lax.dynamic_update_slice_in_dim(
                array, wide.reshape(size, *array.shape[1:]), i * size, 0
            )

        return jax.tree.map(put, arrays, made, record.places)

    def blank(shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros((shape.shape[0] // devices, *shape.shape[1:]), jnp.float32)

    arrays = {record.name: jax.tree.map(blank, _shapes(record.lead))}
    for bias in record.biases:
        number = jnp.zeros(shards * rows, jnp.float32)
        arrays[bias.name] = jax.tree.map(lambda _, n=number: n, record.places[bias.name])
    return jax.lax.fori_loop(0, shards, some, arrays)


def _wide(rows: jax.Array, width: int, fill: float) -> jax.Array:
    """Returns rows [n, lanes] as [n, width]."""
    return jnp.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)


def _shards(record: Record, units: int, rows: int) -> tuple[int, int]:
    """Returns the rows of a virtual shard, and the shards of a block of `units` of `rows` each."""
    layout = record.lead.layout
    per_shard = layout.lines_per_shard * layout.pack
    return per_shard, units * rows // per_shard
