"""What a step does to the tables: each device reads and updates the touched rows of its blocks."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.embedding._access import read_rows
from monolith_jax.embedding._forms import Forms
from monolith_jax.embedding._init import as_float32
from monolith_jax.embedding._lookups import Lookups
from monolith_jax.embedding._norms import table_squares
from monolith_jax.embedding._placement import BY_ROW, EVERYWHERE, Placement
from monolith_jax.embedding._records import read_records, update_records
from monolith_jax.embedding._rounding import step_key
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding._update import Rounding, Touched, update_block
from monolith_jax.embedding.engine import Rows, State


@dataclass(frozen=True)
class Step:
    """Reads and updates rows of tables of all forms, over all devices; to be jitted.

    Attributes:
      stacks: the tables.
      forms: how they are kept and reached.
      placement: the devices.
      seed: of the stochastic rounding.
    """

    stacks: tuple[Stack, ...]
    forms: Forms
    placement: Placement
    seed: int

    def gather(self, state: State, lookups: Lookups) -> Rows:
        """Returns the touched rows by stack, float32 [D * U, dim]; the padding holds anything."""
        rows: Rows = self.placement.split(self._read, (BY_ROW, BY_ROW))(_arrays(state), lookups)
        return rows

    def _read(self, arrays: Any, lookups: Lookups) -> Rows:
        """Reads the touched rows of one device's blocks."""
        found: Rows = {}
        for stack in self.forms.apart:
            name, reach = stack.name, self.forms.reach[stack.name]
            value = arrays[name]["value"]
            (rows,) = read_rows([value], lookups[name], stack.layout, reach, [0.0], first=True)
            found[name] = rows.astype(jnp.float32)
        for name, record in self.forms.records.items():
            records = arrays[name]["records"]
            held = read_records(record, records, lookups[name], self.forms.reach[name])
            found |= {member: parts["value"] for member, parts in held.items()}
        return found

    def update(self, state: State, lookups: Lookups, rows: Rows, gradients: Rows) -> State:
        """Returns the state after one step of each table's rule on the touched rows."""
        scalars = {name: stack["scalars"] for name, stack in state["stacks"].items()}
        updated = self.placement.split(
            self._update_blocks, (BY_ROW, EVERYWHERE, EVERYWHERE, BY_ROW, BY_ROW, BY_ROW)
        )(_arrays(state), scalars, state["step"], lookups, rows, gradients)
        return {
            "step": state["step"] + 1,
            "stacks": {
                stack.name: {
                    **updated.get(stack.name, {}),  # a bias lies in its lead's records
                    "scalars": as_float32(stack.rule.advance(scalars[stack.name])),
                }
                for stack in self.stacks
            },
        }

    def _update_blocks(
        self,
        arrays: Any,
        scalars: Any,
        step: jax.Array,
        lookups: Lookups,
        rows: Rows,
        gradients: Rows,
    ) -> Any:
        """Updates every stack's block of one device."""
        blocks: dict[str, Any] = {}
        for name, record in self.forms.records.items():
            records, reach = arrays[name]["records"], self.forms.reach[name]
            records = update_records(
                record, reach, records, scalars, step, lookups[name], rows, gradients
            )
            blocks[name] = {"records": records}
        for stack in self.forms.apart:
            name = stack.name
            block = Touched(
                arrays[name]["value"],
                arrays[name]["slots"],
                scalars[name],
                step,
                lookups[name],
                rows[name],
                gradients[name],
            )
            value, slots = update_block(
                stack, self.forms.reach[name], block, self._rounding(stack, step)
            )
            blocks[name] = {"value": value, "slots": slots}
        return blocks

    def _rounding(self, stack: Stack, step: jax.Array) -> Rounding | None:
        """Returns how new values are rounded, drawn by the stack's place among all; None: not."""
        if stack.dtype != "bfloat16":
            return None
        key = step_key(self.seed, self.stacks.index(stack), step)
        return Rounding(key, self._first_row(stack))

    def gradient_squares(self, lookups: Lookups, gradients: Rows) -> dict[str, jax.Array]:
        """Returns the squared norm of each table's gradient, float32 [], by table."""
        squares = self.placement.split(self._squares, (BY_ROW, BY_ROW))(lookups, gradients)
        sums = {name: jnp.sum(parts, axis=0) for name, parts in squares.items()}
        return {
            table.name: sums[stack.name][i]
            for stack in self.stacks
            for i, table in enumerate(stack.tables)
        }

    def _squares(self, lookups: Lookups, gradients: Rows) -> dict[str, jax.Array]:
        """Sums one device's part by stack, [1, tables]; biases lie as their leads do."""
        return {
            name: table_squares(lead, lookups[lead.name], gradients[name], self._first_row(lead))
            for name, lead in self.forms.leads.items()
        }

    def _first_row(self, stack: Stack) -> jax.Array:
        """Returns the first physical row of this device's block, within `split`."""
        return self.placement.index() * (stack.layout.physical_rows // self.placement.devices)


def _arrays(state: State) -> Any:
    """Returns a state's arrays that are split over the devices, by stack."""
    stacks = state["stacks"].items()
    return {name: {k: x for k, x in held.items() if k != "scalars"} for name, held in stacks}
