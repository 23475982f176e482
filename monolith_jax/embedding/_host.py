"""The host's half of an engine: it makes the lookups of batches."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from monolith_jax.embedding._forms import Forms
from monolith_jax.embedding._lookups import Lookups
from monolith_jax.embedding._placement import Placement
from monolith_jax.embedding._room import Room


class Host:
    """Makes lookups, in the input threads, several at once.

    Args:
      forms: whose rows are asked for, and how they are reached and travel.
      batch_size: examples of a batch, over all devices.
      placement: the devices.
    """

    def __init__(self, forms: Forms, batch_size: int, placement: Placement) -> None:
        self._forms, self._batch_size, self._placement = forms, batch_size, placement
        self._room: Mapping[str, Room] = {}
        self._prepare: Any = None

    def prepare(self, columns: Mapping[str, Any]) -> Lookups:
        """Returns the lookups of a batch, with the weights of its ids where a feature has any."""
        # numba takes its time to import, and who only restores or exports needs none of it.
        from monolith_jax.embedding._ids import id_weights

        if self._prepare is None:
            self._prepare = self._preparer()
        lookups: Lookups = self._prepare(columns)
        for stack in self._forms.asking:
            if stack.weighted:
                weights = id_weights(stack, columns, self._batch_size)
                lookups[stack.name] = dataclasses.replace(lookups[stack.name], weights=weights)
        return lookups

    def make_room(self, room: Mapping[str, Room]) -> None:
        """Pads every batch that these sizes hold to them, from the next one on."""
        self._room, self._prepare = room, None

    def _preparer(self) -> Any:
        from monolith_jax.embedding._prepare import Preparer

        return Preparer(
            self._forms.asking,
            self._batch_size,
            self._placement.devices,
            {name: reach.rows for name, reach in self._forms.reach.items()},
            ragged=self._forms.ragged,
            room=self._room,
            mine=self._placement.mine,
        )
