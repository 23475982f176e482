"""The engine: tables that are read and written by the rows a batch touches, and by no others."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.embedding import _export
from monolith_jax.embedding._access import read_rows
from monolith_jax.embedding._combine import combine_features, receive
from monolith_jax.embedding._init import init_block
from monolith_jax.embedding._lookups import Lookups
from monolith_jax.embedding._stacks import Stack, build_stacks
from monolith_jax.embedding._update import init_slots, slot_shape, update_block
from monolith_jax.embedding.config import FeatureConfig, TableConfig
from monolith_jax.errors import ConfigError, UserError, did_you_mean

State: TypeAlias = dict[str, Any]
"""`{"step": int32 [], "stacks": {stack: {"value", "slots": {name}, "scalars": {name}}}}`."""

Rows: TypeAlias = dict[str, jax.Array]
"""By stack, float32 [D * U, dim]: the rows that a batch touches, each once."""

Form = Literal["auto", "rows", "lines"]


class Engine(Protocol):
    """What a train step needs of tables; `prepare` runs on the host, the rest inside one jit.

    The step gathers, differentiates with respect to the rows, and updates:

        rows = engine.gather(state, lookups)
        loss, (d_params, d_rows) = jax.value_and_grad(
            lambda params, rows: f(params, engine.combine(rows, lookups)), argnums=(0, 1)
        )(params, rows)
        state = engine.update(state, lookups, rows, d_rows)

    `d_rows` has one row per distinct id, summed over its occurrences in the whole batch: it is
    TF1's deduplicated gradient, to be clipped or measured as it is (padding rows are zero).
    """

    def init(self, key: jax.Array) -> State:
        """Returns the state before the first step, on its devices."""

    def abstract_state(self) -> State:
        """Returns the state's shapes, dtypes and shardings as `jax.ShapeDtypeStruct`s."""

    def prepare(self, columns: Mapping[str, Any]) -> Lookups:
        """Returns what a batch asks of the tables, as numpy arrays."""

    def lookups_sharding(self, lookups: Lookups) -> Any:
        """Returns the shardings to `jax.device_put` the lookups with."""

    def gather(self, state: State, lookups: Lookups) -> Rows:
        """Returns the touched rows, each read once."""

    def combine(self, rows: Rows, lookups: Lookups) -> dict[str, jax.Array]:
        """Returns each feature's vectors, [batch, dim]; differentiable in `rows`."""

    def update(self, state: State, lookups: Lookups, rows: Rows, gradients: Rows) -> State:
        """Returns the state after one step of every table's rule on the touched rows."""


class XlaEngine:
    """Touched-row tables in plain XLA, on one device or sharded over a mesh axis.

    Cost of a step, per device: the touched rows and their slots once in and once out (TF's Adam:
    the whole table), the ids' rows `[batch * ids, dim]` once forward and once backward, and, on D
    devices, two all_to_alls of `D * C` rows, C the most rows that one device asks of another. No
    dense gradient of a table exists, and with a donated state no copy of one.

    Args:
      tables: the tables; those of equal `dim` and `optimizer` share one array.
      features: the lookups.
      batch_size: examples of a batch, over all devices; a multiple of the devices.
      mesh: the devices; None: jax's default device.
      axis: the mesh axis that batch and tables are split over.
      shards: virtual shards, the unit of distribution. Part of the layout of a checkpoint: it must
        stay the same, and the number of devices must divide it.
      form: how rows are reached, "rows" or "lines"; "auto": lines on a TPU, rows elsewhere. No
        number depends on it.

    Raises:
      ConfigError: names twice, unknown tables, batch size or devices that do not divide.
      UserError: in a program of several processes.

    Example:
      >>> from monolith_jax.optimizers import Sgd
      >>> engine = XlaEngine(
      ...     [TableConfig(name="user", vocab_size=10, dim=2, optimizer=Sgd(learning_rate=1.0))],
      ...     [FeatureConfig(name="user", table="user")],
      ...     batch_size=3,
      ... )
      >>> state = engine.with_table(engine.init(jax.random.key(0)), "user", np.zeros((10, 2)))
      >>> lookups = engine.prepare({"user": np.array([7, 1, 7])})
      >>> rows = engine.gather(state, lookups)
      >>> gradients = jax.grad(lambda r: engine.combine(r, lookups)["user"].sum())(rows)
      >>> state = engine.update(state, lookups, rows, gradients)
      >>> engine.table_rows(state, "user", 0, 9)[[0, 1, 7]].tolist()
      [[0.0, 0.0], [-1.0, -1.0], [-2.0, -2.0]]
    """

    def __init__(
        self,
        tables: Sequence[TableConfig],
        features: Sequence[FeatureConfig],
        *,
        batch_size: int,
        mesh: Mesh | None = None,
        axis: str = "data",
        shards: int = 1024,
        form: Form = "auto",
    ) -> None:
        if mesh is not None and axis not in mesh.shape:
            raise ConfigError(f"no mesh axis {axis!r}: {did_you_mean(axis, mesh.axis_names)}")
        self.devices = 1 if mesh is None else mesh.shape[axis]
        self._check(mesh, batch_size, shards)
        self.stacks: tuple[Stack, ...] = build_stacks(tables, features, shards)
        self.batch_size = batch_size
        self.shards = shards
        self._order = [feature.name for feature in features]
        self._mesh, self._axis = mesh, axis
        platform = jax.devices()[0].platform if mesh is None else mesh.devices.flat[0].platform
        self._lines = form == "lines" or (form == "auto" and platform == "tpu")
        self._prepare: Any = None
        for stack in self.stacks:
            if 2 * stack.layout.physical_rows // self.devices >= 2**31:
                raise ConfigError(
                    f"tables {', '.join(t.name for t in stack.tables)}: "
                    f"{stack.layout.physical_rows} rows on {self.devices} devices; at most "
                    "2**30 rows per device are possible"
                )

    def _check(self, mesh: Mesh | None, batch_size: int, shards: int) -> None:
        if mesh is not None and len({d.process_index for d in mesh.devices.flat}) > 1:
            raise UserError("tables over several processes are not supported yet; start one")
        if shards % self.devices:
            raise ConfigError(
                f"{self.devices} devices do not divide the {shards} virtual shards of the tables"
            )
        if batch_size < 1 or batch_size % self.devices:
            raise ConfigError(
                f"batch_size {batch_size} does not divide over {self.devices} devices"
            )

    # --- state -------------------------------------------------------------------------------

    def init(self, key: jax.Array) -> State:
        """Returns the state before the first step, made on its devices.

        The values depend on the key, the tables and `shards`, not on mesh, devices or backend.
        """
        return jax.jit(self._init, out_shardings=self.state_sharding())(key)

    def _init(self, key: jax.Array) -> State:
        stacks = {}
        for i, stack in enumerate(self.stacks):
            make = partial(self._init_values, stack)
            value = self._split(make, (P(),), P(self._axis))(jax.random.fold_in(key, i))
            stacks[stack.name] = {
                "value": value,
                "slots": init_slots(stack),
                "scalars": _float32(stack.rule.scalars),
            }
        return {"step": jnp.zeros((), jnp.int32), "stacks": stacks}

    def _init_values(self, stack: Stack, key: jax.Array) -> jax.Array:
        mine = self.shards // self.devices
        first = jax.lax.axis_index(self._axis) * mine if self.devices > 1 else jnp.int32(0)
        return init_block(stack, key, first, mine)

    def abstract_state(self) -> State:
        """Returns the state's shapes, dtypes and shardings, for restoring a checkpoint."""
        shapes: Any = {
            "step": jax.ShapeDtypeStruct((), jnp.int32),
            "stacks": {stack.name: _abstract(stack) for stack in self.stacks},
        }
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            shapes,
            self.state_sharding(),
        )

    def state_sharding(self) -> Any:
        """Returns the state's shardings: tables and slots in blocks of rows, scalars everywhere."""
        split, everywhere = self._sharding(P(self._axis)), self._sharding(P())
        return {
            "step": everywhere,
            "stacks": {
                stack.name: {
                    "value": split,
                    "slots": {slot.name: split for slot in stack.rule.slots},
                    "scalars": dict.fromkeys(stack.rule.scalars, everywhere),
                }
                for stack in self.stacks
            },
        }

    # --- host --------------------------------------------------------------------------------

    def prepare(self, columns: Mapping[str, Any]) -> Lookups:
        """Returns what a batch asks of the tables: distinct rows, and where each id finds its row.

        Runs on the host, in the input thread; any number of threads at once. Shapes are chosen
        from this batch alone, in few sizes, so that a few compiled programs serve a whole run.

        Args:
          columns: by name, int64 [batch] or [batch, k], or ragged (`values`, `offsets`).

        Raises:
          DataError: a missing or misshapen column, an id outside its table, too many ids; names
            the feature, the example and the id.
        """
        if self._prepare is None:
            # numba takes its time to import, and who only restores or exports needs none of it.
            from monolith_jax.embedding._prepare import Preparer

            self._prepare = Preparer(self.stacks, self.batch_size, self.devices, self._lines)
        lookups: Lookups = self._prepare(columns)
        return lookups

    def lookups_sharding(self, lookups: Lookups) -> Any:
        """Returns a sharding for every array of `lookups`: the leading axis over the devices."""
        return jax.tree.map(lambda _: self._sharding(P(self._axis)), lookups)

    # --- inside the jitted step --------------------------------------------------------------

    def gather(self, state: State, lookups: Lookups) -> Rows:
        """Returns the touched rows, float32 [D * U, dim] by stack, each read once by its owner.

        Padding rows are zero.
        """

        def local(values: Rows, lookups: Lookups) -> Rows:
            return {
                stack.name: read_rows(values[stack.name], lookups[stack.name], stack.layout, 0.0)
                for stack in self.stacks
            }

        values = {name: stack["value"] for name, stack in state["stacks"].items()}
        return self._split(local, (P(self._axis), P(self._axis)), P(self._axis))(values, lookups)

    def combine(self, rows: Rows, lookups: Lookups) -> dict[str, jax.Array]:
        """Returns each feature's vectors, float32 [batch, dim], in the order of the features.

        Differentiable with respect to `rows`: the gradient of a row is the sum over all the places
        that used it, on all devices.
        """

        def local(rows: Rows, lookups: Lookups) -> dict[str, jax.Array]:
            found: dict[str, jax.Array] = {}
            for stack in self.stacks:
                here, asked = rows[stack.name], lookups[stack.name]
                if self.devices > 1:
                    here = receive(here, asked, self._axis)
                found |= combine_features(here, asked.index, stack.features)
            return found

        split = P(self._axis)
        found = self._split(local, (split, split), split)(rows, lookups)
        # A dict that went through shard_map comes back with its keys sorted.
        return {name: found[name] for name in self._order}

    def update(self, state: State, lookups: Lookups, rows: Rows, gradients: Rows) -> State:
        """Returns the state after one step of each table's rule on the touched rows.

        Args:
          state: donate it to the jit that this runs in; it is written in place.
          lookups: of this batch.
          rows: as gathered from `state` with `lookups`.
          gradients: shaped as `rows`.
        """
        split, everywhere = P(self._axis), P()
        arrays = {
            name: {"value": stack["value"], "slots": stack["slots"]}
            for name, stack in state["stacks"].items()
        }
        scalars = {name: stack["scalars"] for name, stack in state["stacks"].items()}
        updated = self._split(
            self._update_blocks, (split, everywhere, everywhere, split, split, split), split
        )(arrays, scalars, state["step"], lookups, rows, gradients)
        return {
            "step": state["step"] + 1,
            "stacks": {
                stack.name: {
                    **updated[stack.name],
                    "scalars": _float32(stack.rule.advance(scalars[stack.name])),
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
        blocks = {}
        for stack in self.stacks:
            name = stack.name
            value, slots = update_block(
                stack,
                arrays[name]["value"],
                arrays[name]["slots"],
                scalars[name],
                step,
                lookups[name],
                rows[name],
                gradients[name],
            )
            blocks[name] = {"value": value, "slots": slots}
        return blocks

    # --- rows by their ids -------------------------------------------------------------------

    def table_rows(
        self, state: State, table: str, start: int = 0, stop: int | None = None
    ) -> np.ndarray:
        """Returns rows `start` to `stop` (None: the last) of a table, float32 [n, dim].

        Raises:
          ConfigError: no such table.
        """
        stack = self._stack_of(table)
        return _export.read_values(stack, state["stacks"][stack.name]["value"], table, start, stop)

    def table_slots(
        self, state: State, table: str, start: int = 0, stop: int | None = None
    ) -> dict[str, np.ndarray]:
        """Returns the slots of rows `start` to `stop`, by name, [n, dim], or [n, 1] if per row.

        Raises:
          ConfigError: no such table.
        """
        stack = self._stack_of(table)
        slots = state["stacks"][stack.name]["slots"]
        return {
            slot.name: _export.read_slot(stack, slot, slots[slot.name], table, start, stop)
            for slot in stack.rule.slots
        }

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
        stack = self._stack_of(table)
        old = state["stacks"][stack.name]
        new = {**old, "slots": dict(old["slots"])}
        split = self._sharding(P(self._axis))
        if rows is not None:
            new["value"] = _export.write_values(stack, old["value"], table, start, rows, split)
        by_name = {slot.name: slot for slot in stack.rule.slots}
        for name, values in (slots or {}).items():
            if name not in by_name:
                raise ConfigError(
                    f"table {table!r} has no slot {name!r}: {did_you_mean(name, by_name)}"
                )
            new["slots"][name] = _export.write_slot(
                stack, by_name[name], old["slots"][name], table, start, values, split
            )
        return {**state, "stacks": {**state["stacks"], stack.name: new}}

    def _stack_of(self, table: str) -> Stack:
        for stack in self.stacks:
            if table in (member.name for member in stack.tables):
                return stack
        names = [member.name for stack in self.stacks for member in stack.tables]
        raise ConfigError(f"no table named {table!r}: {did_you_mean(table, names)}")

    # --- placement ---------------------------------------------------------------------------

    def _sharding(self, spec: P) -> Any:
        if self._mesh is None:
            return SingleDeviceSharding(jax.devices()[0])
        return NamedSharding(self._mesh, spec)

    def _split(self, function: Any, in_specs: Any, out_specs: Any) -> Any:
        """Returns `function` mapped over the devices' parts; itself where there is one device."""
        if self.devices == 1:
            return function
        return jax.shard_map(
            function, mesh=self._mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )


def _abstract(stack: Stack) -> Any:
    array = jax.ShapeDtypeStruct
    return {
        "value": array(stack.layout.shape, jnp.float32),
        "slots": {
            slot.name: array(slot_shape(stack, slot), jnp.float32) for slot in stack.rule.slots
        },
        "scalars": {name: array((), jnp.float32) for name in stack.rule.scalars},
    }


def _float32(scalars: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value, jnp.float32) for name, value in scalars.items()}
