"""Records: a row's value, its slots and its bias side by side, in whole lines of their own.

Where a chip moves lines of 128 lanes, a row of 32 lanes costs a line of each array that has a part
of it, in and out. In a record these parts follow each other, and the row costs its record:

    [ value | its slots ... | bias | its slots ... | padding ]        a multiple of 128 lanes

A bias is a row of one lane in another table that is looked up by the very same ids; it then needs
no lookups of its own. Record r of the array `[physical rows, width]` is physical row r of the
layout of the wider rows, so that a device's block of records has the rows of its block of lines.
Checkpoints have the arrays apart (`_record_form`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.embedding._access import put_units, take_units
from monolith_jax.embedding._layout import LANES
from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._parts import Part
from monolith_jax.embedding._reach import Reach
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
      >>> record.shape, record.places["dim30_lazyadam"]["slots"]["v"]
      ((12, 128), Place(start=60, lanes=30, fill=0.0))
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
    def width(self) -> int:
        """Lanes of a record, padding included."""
        return -(-self.lanes // LANES) * LANES

    @property
    def shape(self) -> tuple[int, int]:
        """The array's shape, `(physical rows, width)`."""
        return self.lead.layout.physical_rows, self.width

    @cached_property
    def fills(self) -> np.ndarray:
        """What a record of no row holds, float32 [width]."""
        found = np.zeros(self.width, np.float32)
        for place in jax.tree.leaves(self.places):
            found[place.start : place.start + place.lanes] = place.fill
        return found

    def split(self, records: jax.Array) -> dict[str, Any]:
        """Returns the parts, [n, lanes] each, of records [n, width]; structured as `places`."""
        parts: dict[str, Any] = jax.tree.map(
            lambda place: records[:, place.start : place.start + place.lanes], self.places
        )
        return parts

    def join(self, parts: Any) -> jax.Array:
        """Returns records [n, width] of their parts, the inverse of `split`."""
        pairs = zip(jax.tree.leaves(self.places), jax.tree.leaves(parts), strict=True)
        ordered = [part for _, part in sorted(pairs, key=lambda pair: pair[0].start)]
        behind = jnp.zeros((ordered[0].shape[0], self.width - self.lanes), ordered[0].dtype)
        return jnp.concatenate([*ordered, behind], axis=1)


def records_of(stacks: Sequence[Stack], form: str, *, biases: bool = True) -> dict[str, Record]:
    """Returns the records that stacks are kept in, by the lead's name; the others keep arrays.

    Not those of bfloat16, nor where a rule moves all rows at each step: there whole arrays pass
    through the chip, without the padding that records have.

    Args:
      stacks: the tables.
      form: how rows are reached.
      biases: whether rows may have biases with them.
    """
    if form != "records":
        return {}
    able = [s for s in stacks if s.dtype == "float32" and not s.rule.touches_all_rows]
    found: dict[str, Record] = {}
    taken: set[str] = set()
    for lead in sorted(able, key=lambda stack: stack.layout.dim == 1):
        if lead.name in taken:
            continue
        free = [stack for stack in able if biases and stack.name not in taken]
        record = Record((lead, *(stack for stack in free if _goes_with(stack, lead))))
        taken.update(stack.name for stack in record.stacks)
        found[lead.name] = record
    return found


def leads_of(stacks: Sequence[Stack], records: Mapping[str, Record]) -> dict[str, Stack]:
    """Returns for each stack the one whose lookups are its own too: itself, or a bias's lead."""
    leads = {stack.name: stack for stack in stacks}
    leads |= {bias.name: record.lead for record in records.values() for bias in record.biases}
    return leads


def _goes_with(bias: Stack, lead: Stack) -> bool:
    """Whether the tables of a stack are biases to those of another: alike, looked up alike."""
    if bias.layout.dim > 1 or lead.layout.dim == 1:
        return False
    theirs, ours = (
        (
            [(table.vocab_size, table.sharding) for table in stack.tables],
            [_asked(stack, part) for part in stack.features],
        )
        for stack in (bias, lead)
    )
    return theirs == ours


def _asked(stack: Stack, part: Part) -> tuple[Any, ...]:
    """Returns what decides which rows a lookup touches, and in which order."""
    nth = [table.name for table in stack.tables].index(part.table)
    feature = part.feature
    rules = (feature.out_of_range, feature.negative, feature.too_long, feature.required)
    ids = (part.ids, part.divisor, part.modulus, part.max_length)
    return nth, feature.source, feature.weights, rules, ids


def read_records(record: Record, records: jax.Array, lookups: StackLookups, reach: Reach) -> Any:
    """Returns what the touched rows' records hold, structured as `places`.

    Args:
      record: what is where.
      records: [rows, width], one device's block.
      lookups: this device's part.
      reach: how the backend reaches them.
    """
    (found,) = take_units([records], lookups.rows, reach, [record.fills])
    return record.split(found)


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
      records: [rows, width], one device's block.
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
    (written,) = put_units([records], lookups.rows, reach, [record.join(new)])
    return written
