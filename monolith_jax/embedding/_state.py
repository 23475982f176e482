"""The state of an engine's tables: made, saved, restored, laid out anew, and read by rows' ids."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.embedding import _export
from monolith_jax.embedding._init import init_saved, saved_shapes, state_shardings
from monolith_jax.embedding._placement import Placement
from monolith_jax.embedding._record_choice import Records
from monolith_jax.embedding._record_form import RecordForm
from monolith_jax.embedding._reshard import reshard
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.engine import State


class TableKeeper:
    """Keeps the tables of an engine: what is done with their state outside the steps.

    The state has values and slots in arrays, or in records; checkpoints have arrays always, and
    rows are read and replaced in those.

    Args:
      stacks: the tables.
      records: those that are kept in records.
      placement: the devices.
      shards: virtual shards, over all devices.
    """

    def __init__(
        self, stacks: tuple[Stack, ...], records: Records, placement: Placement, shards: int
    ) -> None:
        self.stacks = stacks
        self.records = records
        self.shards = shards
        self.devices = placement.devices
        self._placement = placement
        self._form = RecordForm(records, placement)

    def init(self, key: jax.Array) -> State:
        """Returns the state before the first step, made on its devices.

        The values depend on the key, the tables and `shards`, not on mesh, devices or backend.
        """
        return jax.jit(self._start, out_shardings=self.state_sharding())(key)

    def _start(self, key: jax.Array) -> State:
        saved = init_saved(self.stacks, self._placement, self.shards, key)
        return self._form.from_saved(saved)

    def abstract_state(self) -> State:
        """Returns the state's shapes, dtypes and shardings."""
        by_row = self._placement.by_row

        def shape(name: str, _: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(self.records[name].shape, jnp.float32, sharding=by_row)

        state: State = self._form.replaced(self.abstract_saved(), shape)
        return state

    def state_sharding(self) -> Any:
        """Returns the state's shardings: tables and slots in blocks of rows, scalars everywhere."""
        return self._form.replaced(self._saved_sharding(), lambda *_: self._placement.by_row)

    def _saved_sharding(self) -> Any:
        return state_shardings(self.stacks, self._placement.by_row, self._placement.everywhere)

    # --- as checkpoints have it --------------------------------------------------------------

    def abstract_saved(self) -> State:
        """Returns the shapes of what checkpoints have: values and slots in arrays of their own."""
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            saved_shapes(self.stacks),
            self._saved_sharding(),
        )

    def to_saved(self, state: State) -> State:
        """Returns the state as checkpoints have it: as it is but for records, which are split.

        Records and what is made of them are both in memory until one is let go.
        """
        return self._form.to_saved(state)

    def from_saved(self, saved: State) -> State:
        """Returns the state of a checkpoint; the inverse of `to_saved`."""
        return self._form.from_saved(saved)

    def resharded(self, state: State, source: "TableKeeper") -> State:
        """Returns another engine's saved state as one of this engine; the other is not kept.

        Rows, slots and scalars are the same to the last bit, only laid out by this engine's
        `sharding`: what lets a run go on with another one than its checkpoint has.

        Args:
          state: of `source`, as checkpoints have it; as the result, with which it is in memory.
          source: from `with_sharding`.
        """
        moved = jax.jit(
            partial(reshard, source.stacks, self.stacks),
            out_shardings=self._saved_sharding()["stacks"],
        )(state["stacks"])
        return {"step": state["step"], "stacks": moved}

    # --- rows by their ids -------------------------------------------------------------------

    def table_rows(
        self, state: State, table: str, start: int = 0, stop: int | None = None
    ) -> np.ndarray:
        """Returns rows `start` to `stop` (None: the last) of a table, float32 [n, dim].

        Raises:
          ConfigError: no such table.
        """
        saved = self._form.to_saved(state, table)
        return _export.table_rows(self.stacks, saved, table, start, stop)

    def table_slots(
        self, state: State, table: str, start: int = 0, stop: int | None = None
    ) -> dict[str, np.ndarray]:
        """Returns the slots of rows `start` to `stop`, by name, [n, dim], or [n, 1] if per row.

        Raises:
          ConfigError: no such table.
        """
        saved = self._form.to_saved(state, table)
        return _export.table_slots(self.stacks, saved, table, start, stop)

    def with_table(
        self,
        state: State,
        table: str,
        rows: np.ndarray | None = None,
        slots: Mapping[str, np.ndarray] | None = None,
        start: int = 0,
    ) -> State:
        """Returns the state with rows of a table, or their slots, replaced from `start` on.

        Args:
          state: not changed; arrays that are not replaced are shared with the result.
          table: its name.
          rows: [n, dim].
          slots: by name, [n, dim], or [n, 1] if per row.
          start: the first row.

        Raises:
          ConfigError: no such table or slot, or a shape that does not fit it.
        """
        saved, split = self._form.to_saved(state, table), self._placement.by_row
        saved = _export.with_table(self.stacks, saved, table, rows, slots or {}, start, split)
        return self._form.from_saved(saved)
