"""Which stacks are kept in records, and which biases lie beside whose rows.

Where lines are moved, `form="auto"` weighs, for one touched row, the lanes of the lines that hold
it and its slots, with n slots of an element and p of a row, all in lines of 128 lanes,

    apart       line (1 + n) + 128 p
    in records  the record's line

and takes what moves less: biases in the lead's record, else in records of their own, else apart. It
leaves apart what a record would need more than `MEMORY` times the memory for. While a checkpoint is
saved, the records and the arrays made of them are both on the device: where that would pass `ROOM`,
nothing is kept in records.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from monolith_jax.embedding._layout import LANES
from monolith_jax.embedding._parts import Part
from monolith_jax.embedding._reach import WIDEST, Form, form_on
from monolith_jax.embedding._records import Record
from monolith_jax.embedding._stacks import Stack

MEMORY = 1.5
"""The most lanes that a record may take for one that its parts take apart."""

ROOM = 14 << 30
"""Bytes of a device for the state and what a checkpoint is made from: TPU v5e has 16 GiB."""

Records = dict[str, Record]
"""By the lead's name."""


def records_of(
    stacks: Sequence[Stack], form: Form, device: Any, devices: int, *, biases: bool = True
) -> Records:
    """Returns the records that stacks are kept in; the others keep arrays.

    Not those of bfloat16, nor where a rule moves all rows at each step: there whole arrays pass
    through the chip.

    Args:
      stacks: the tables.
      form: how rows are reached; "records" keeps all that can be in records.
      device: one of the devices.
      devices: their number.
      biases: whether rows may have biases with them.
    """
    if form != "records" and (form != "auto" or form_on(device) != "lines"):
        return {}
    able = [s for s in stacks if s.dtype == "float32" and not s.rule.touches_all_rows]
    found: Records = {}
    taken: set[str] = set()
    for lead in sorted(able, key=lambda stack: stack.layout.dim == 1):
        if lead.name in taken:
            continue
        free = [stack for stack in able if biases and stack.name not in taken]
        record = _best(lead, [s for s in free if _goes_with(s, lead)], form == "records")
        if record is not None:
            taken.update(stack.name for stack in record.stacks)
            found[lead.name] = record
    if form == "auto" and _bytes(stacks, found) > ROOM * devices:
        return {}
    return found


def leads_of(stacks: Sequence[Stack], records: Records) -> dict[str, Stack]:
    """Returns for each stack the one whose lookups are its own too: itself, or a bias's lead."""
    leads = {stack.name: stack for stack in stacks}
    leads |= {bias.name: record.lead for record in records.values() for bias in record.biases}
    return leads


def _best(lead: Stack, biases: Sequence[Stack], forced: bool) -> Record | None:
    """Returns the lead's record, with its biases or without; None: it is better kept apart."""
    alone, together = Record((lead,)), Record((lead, *biases))
    if forced:
        return together
    least = sum(_least(stack) for stack in together.stacks)
    if biases and _moved(together) < least and _serves(together):
        return together
    return alone if _serves(alone) else None


def _serves(record: Record) -> bool:
    """Whether a record moves less than its parts do apart, and takes not much more memory."""
    apart = sum(_apart(stack) for stack in record.stacks)
    stored = sum(_stored(stack) for stack in record.stacks)
    narrow = record.layout.width <= min(MEMORY * stored, WIDEST)
    return narrow and _moved(record) < apart


def _moved(record: Record) -> int:
    return record.layout.line_width


def _least(stack: Stack) -> int:
    """Returns the lanes that are moved for a row without biases, in a record or apart."""
    record = Record((stack,))
    return _moved(record) if _serves(record) else _apart(stack)


def _apart(stack: Stack) -> int:
    """Returns the lanes that are moved for a row where each array has lines of its own."""
    per_row = sum(slot.per_row for slot in stack.rule.slots)
    return stack.layout.line_width * (1 + len(stack.rule.slots) - per_row) + LANES * per_row


def _stored(stack: Stack) -> int:
    """Returns the lanes that a row and its slots take apart."""
    per_row = sum(slot.per_row for slot in stack.rule.slots)
    return stack.layout.width * (1 + len(stack.rule.slots) - per_row) + per_row


def _bytes(stacks: Iterable[Stack], records: Records) -> int:
    """Returns the bytes of the state, over all devices, and of what a checkpoint is made from."""
    lanes = sum(stack.layout.physical_rows * _stored(stack) for stack in stacks)
    lanes += sum(record.shape[0] * record.shape[1] for record in records.values())
    return 4 * lanes


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
