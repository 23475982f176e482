"""Records: a row's value, its slots and its bias side by side.

Where a chip moves lines of 128 lanes, a row of 32 lanes costs a line of each array that has a part
of it, in and out. In a record these parts follow each other, and the row costs one line, or as
many as its record fills:

    [ value | its slots ... | bias | its slots ... | padding ]    a divisor or a multiple of 128

A bias is a row of one lane in another table that is looked up by the very same ids; it then needs
no lookups of its own. Records follow each other in the order of the wider rows' physical rows, so
that a device's block of records has the rows of its block of lines. Checkpoints have the arrays
apart (`_record_form`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.embedding._access import put_units, take_units
from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._reach import Reach
from monolith_jax.embedding._shared_lines import rows_of_lines, with_rows
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.engine import Rows


@dataclass(frozen=True)
class Place:
    """Where in a record the part of one array lies: its lanes, and what they hold at first."""

    start: int
    lanes: int
    fill: float


@dataclass(frozen=True)
class Record:
    """The rows of one stack with their slots, and those of its biases.

    Attributes:
      stacks: whose rows it has, the lead before the biases.

    Example:
      >>> from monolith_jax.embedding._stacks import build_stacks
      >>> from monolith_jax.embedding.config import TableConfig
      >>> from monolith_jax.optimizers import LazyAdam
      >>> table = TableConfig(name="t", vocab_size=9, dim=30, optimizer=LazyAdam())
      >>> record = Record(build_stacks([table], [], 1))
      >>> record.layout.width, record.shape, record.places["dim30_lazyadam"]["slots"]["v"]
      (128, (12, 128), Place(start=60, lanes=30, fill=0.0))
    """

    stacks: tuple[Stack, ...]

    @property
    def lead(self) -> Stack:
        """The stack whose layout and lookups are the record's."""
        return self.stacks[0]

    @property
    def biases(self) -> tuple[Stack, ...]:
        """The stacks of one lane that go with the lead's rows."""
        return self.stacks[1:]

    @property
    def name(self) -> str:
        """The lead's name."""
        return self.lead.name

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables whose rows it has."""
        return tuple(table.name for stack in self.stacks for table in stack.tables)

    @cached_property
    def places(self) -> dict[str, Any]:
        """By stack, `{"value": Place, "slots": {name: Place}}`."""
        found: dict[str, Any] = {}
        start = 0
        for stack in self.stacks:
            dim = stack.layout.dim
            value, start = Place(start, dim, 0.0), start + dim
            slots = {}
            for slot in stack.rule.slots:
                slots[slot.name] = Place(start, 1 if slot.per_row else dim, float(slot.init))
                start += slots[slot.name].lanes
            found[stack.name] = {"value": value, "slots": slots}
        return found

    @cached_property
    def lanes(self) -> int:
        """Lanes in use."""
        return sum(place.lanes for place in jax.tree.leaves(self.places))

    @property
    def layout(self) -> Layout:
        """How records lie in lines; where they lie says the lead's layout."""
        return replace(self.lead.layout, dim=self.lanes)

    @property
    def shape(self) -> tuple[int, int]:
        """The array's shape, `(lines, line_width)`."""
        return self.lead.layout.physical_rows // self.layout.pack, self.layout.line_width

    @cached_property
    def fills(self) -> np.ndarray:
        """What a record of no row holds, float32 [lanes]."""
        found = np.zeros(self.lanes, np.float32)
        for place in jax.tree.leaves(self.places):
            found[place.start : place.start + place.lanes] = place.fill
        return found

    def split(self, records: jax.Array) -> dict[str, Any]:
        """Returns the parts, [n, lanes] each, of records [n, lanes]; structured as `places`."""
        parts: dict[str, Any] = jax.tree.map(
            lambda place: records[:, place.start : place.start + place.lanes], self.places
        )
        return parts

    def join(self, parts: Any) -> jax.Array:
        """Returns records [n, lanes] of their parts, the inverse of `split`."""
        pairs = zip(jax.tree.leaves(self.places), jax.tree.leaves(parts), strict=True)
        ordered = [part for _, part in sorted(pairs, key=lambda pair: pair[0].start)]
        return jnp.concatenate(ordered, axis=1)


def read_records(record: Record, records: jax.Array, lookups: StackLookups, reach: Reach) -> Any:
    """Returns what the touched rows' records hold, structured as `places`.

    Args:
      record: what is where.
      records: [lines, line_width], one device's block.
      lookups: this device's part.
      reach: how the backend reaches them.
    """
    _, found = _touched(record, records, lookups, reach)
    there = lookups.rows < records.size // record.layout.width
    return record.split(jnp.where(there[:, None], found[:, : record.lanes], record.fills))


def _touched(
    record: Record, records: jax.Array, lookups: StackLookups, reach: Reach
) -> tuple[jax.Array, jax.Array]:
    """Returns the lines that hold the touched rows' records, and these, [U, width]."""
    (lines,) = take_units([records], _units(lookups), reach, [0.0])
    if lookups.slot is None:
        return lines, lines
    return lines, rows_of_lines(lines, lookups.slot, record.layout)


def _units(lookups: StackLookups) -> Any:
    return lookups.rows if lookups.lines is None else lookups.lines


def update_records(
    record: Record,
    reach: Reach,
    records: jax.Array,
    scalars: Mapping[str, dict[str, Any]],
    step: jax.Array,
    lookups: StackLookups,
    rows: Rows,
    gradients: Rows,
) -> jax.Array:
    """Returns the block of records after one step of the tables' rules.

    Args:
      record: what is where.
      reach: how the backend reaches them.
      records: [lines, line_width], one device's block.
      scalars: by stack, the rule's scalars of this step.
      step: int32 [], updates made before.
      lookups: this device's part.
      rows: by stack, [U, dim], the values as gathered.
      gradients: by stack, [U, dim], summed over duplicates.
    """
    held = read_records(record, records, lookups, reach)  # found to be what was gathered
    new = {}
    for stack in record.stacks:
        name = stack.name
        delta, slots = stack.rule.update(
            gradients[name], rows[name], held[name]["slots"], scalars[name], step, rows=True
        )
        new[name] = {"value": rows[name] + delta, "slots": slots}
    joined = jnp.pad(record.join(new), ((0, 0), (0, record.layout.width - record.lanes)))
    if lookups.slot is not None:
        lines, old = _touched(record, records, lookups, reach)
        joined = with_rows(lines, lookups.slot, record.layout, old, joined)
    (written,) = put_units([records], _units(lookups), reach, [joined])
    return written
