"""The engine's state in the form that checkpoints have, and back: each device's block by itself."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax

from monolith_jax.embedding._placement import BY_ROW, Placement
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.engine import State
from monolith_jax.embedding.sparsecore.layout import CoreLayout


class SavedForm:
    """Converts states; nothing crosses from device to device, and no bit of a row or slot changes.

    Args:
      stacks: the tables.
      layouts: by stack, where their rows live.
      placement: the devices.
    """

    def __init__(
        self, stacks: Sequence[Stack], layouts: Mapping[str, CoreLayout], placement: Placement
    ) -> None:
        self._stacks, self._layouts, self._placement = tuple(stacks), layouts, placement

    def to_saved(self, state: State) -> State:
        """Returns `XlaEngine`'s state, with the padding it starts with; to be jitted.

        Args:
          state: the whole, or a part of its stacks.
        """
        return self._converted(state, CoreLayout.to_lines)

    def from_saved(self, saved: State) -> State:
        """Returns the state on SparseCores of `XlaEngine`'s; to be jitted."""
        return self._converted(saved, CoreLayout.from_lines)

    def _converted(self, state: State, convert: Any) -> State:
        stacks = {}
        for stack in self._stacks:
            if stack.name not in state["stacks"]:
                continue
            arrays, layout = state["stacks"][stack.name], self._layouts[stack.name]
            slots = {
                slot.name: self._array(convert, layout, arrays["slots"][slot.name], slot.init)
                for slot in stack.rule.slots
            }
            stacks[stack.name] = {
                "value": self._array(convert, layout, arrays["value"], 0.0),
                "slots": slots,
                "scalars": dict(arrays["scalars"]),
            }
        return {"step": state["step"], "stacks": stacks}

    def _array(self, convert: Any, layout: CoreLayout, array: jax.Array, fill: float) -> jax.Array:
        one = partial(convert, layout, fill=fill)
        converted: jax.Array = self._placement.split(one, (BY_ROW,))(array)
        return converted
