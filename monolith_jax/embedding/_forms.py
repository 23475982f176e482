"""Which form each stack of tables has in an engine, chosen once, when it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monolith_jax.embedding._ragged import Exchange, is_ragged
from monolith_jax.embedding._reach import Form, Reach, reach_of, reach_of_records
from monolith_jax.embedding._record_choice import Records, leads_of, records_of
from monolith_jax.embedding._stacks import Stack


@dataclass(frozen=True)
class Forms:
    """How the stacks are kept, and how their rows are reached and travel.

    Attributes:
      records: what is kept in records, by the lead's name.
      leads: by stack, the one whose lookups are its own too.
      asking: the stacks with lookups of their own: all but the biases that lie in records.
      apart: those of them that keep arrays, in no record.
      ragged: the names of those whose rows take the ragged exchange.
      reach: by the name of an asking stack, how its rows are reached.
    """

    records: Records
    leads: Mapping[str, Stack]
    asking: tuple[Stack, ...]
    apart: tuple[Stack, ...]
    ragged: frozenset[str]
    reach: Mapping[str, Reach]


def forms_of(
    stacks: Sequence[Stack], form: Form, exchange: Exchange, device: Any, devices: int
) -> Forms:
    """Returns the forms of stacks.

    Args:
      stacks: the tables.
      form: how rows are to be reached.
      exchange: how rows are to travel.
      device: one of the devices.
      devices: their number.
    """
    records = records_of(stacks, form, device, devices, biases=exchange != "ragged")
    leads = leads_of(stacks, records)
    asking = tuple(stack for stack in stacks if leads[stack.name] is stack)
    apart = tuple(stack for stack in asking if stack.name not in records)
    # A bias would take half a line in the ragged exchange, which packs rows of one width.
    biased = {name for name, record in records.items() if record.biases}
    ragged = frozenset(
        stack.name
        for stack in asking
        if stack.name not in biased
        and is_ragged(exchange, stack.layout, devices, device.device_kind)
    )
    reach = {
        **{stack.name: reach_of(stack, form, device) for stack in apart},
        **{name: reach_of_records(r.layout, device) for name, r in records.items()},
    }
    return Forms(records, leads, asking, apart, ragged, reach)
