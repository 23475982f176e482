"""Tables on the SparseCores of TPUs, through jax-tpu-embedding."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from monolith_jax.embedding._combine import _scale_gradient
from monolith_jax.embedding._formula import numbers_of
from monolith_jax.embedding._init import as_float32, init_saved, state_shardings
from monolith_jax.embedding._parts import assemble
from monolith_jax.embedding._placement import BY_ROW, Placement
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.config import FeatureConfig, TableConfig
from monolith_jax.embedding.engine import Rows, State
from monolith_jax.embedding.sparsecore.chips import SparseCores, library_missing, sparsecores_of
from monolith_jax.embedding.sparsecore.layout import CoreLayout
from monolith_jax.embedding.sparsecore.limits import Limits
from monolith_jax.embedding.sparsecore.lookups import CoreLookups, Samples
from monolith_jax.embedding.sparsecore.operations import Operations
from monolith_jax.embedding.sparsecore.refused import batch_refusals, refusals, table_refusals
from monolith_jax.embedding.sparsecore.saved import SavedForm
from monolith_jax.embedding.xla import XlaEngine
from monolith_jax.errors import ConfigError

CoreLookupsByStack = dict[str, CoreLookups]


class SparseCoreEngine:
    """Tables on SparseCores: the `Engine` of v5p, v6e and TPU7x.

    What `XlaEngine` does with gathers, scatters and an `all_to_all`, SparseCores do in two
    operations: one looks up and combines, one sums the gradients of each touched row and runs the
    table's rule on it. So `gather` returns the samples' vectors, combined already, by stack, and
    the gradients that `update` takes are theirs; those of single rows exist within the second
    operation alone. That is why they cannot be clipped or measured here.

    The state is `XlaEngine`'s, with the same names, in arrays of rows (`layout`); `to_saved` and
    `from_saved` convert, bit for bit, on each device by itself. Checkpoints hold the saved form:
    the engines read each other's.

    Args:
      tables: the tables.
      features: the lookups.
      batch_size: examples of a batch; a multiple of the SparseCores of all devices.
      mesh: the devices; None: jax's default device.
      axis: the mesh axis that batch and tables are split over.
      shards: virtual shards, as of `XlaEngine`.
      seed: as of `XlaEngine`; unused here, where nothing is rounded at random.
      limits: by stack, what programs are compiled for; a stack without takes each batch's own, in
        sizes of which few occur. A batch beyond them is an error, never a dropped id.
      emulated: run `emulation` in place of the library's operations, on any backend, with
        the SparseCores given; None: the real ones.

    Raises:
      ConfigError: what SparseCores cannot do; names every table and reason.
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
        seed: int = 0,
        limits: Mapping[str, Limits] | None = None,
        emulated: SparseCores | None = None,
    ) -> None:
        self._placement = Placement(mesh, axis)
        device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
        cores = emulated or sparsecores_of(device)
        self.devices = self._placement.devices
        _refuse(tables, batch_size, device, self.devices, emulated)
        assert cores is not None
        self.cores = cores
        self.saved = XlaEngine(
            tables,
            features,
            batch_size=batch_size,
            mesh=mesh,
            axis=axis,
            shards=shards,
            seed=seed,
            form="lines",  # whose state is what checkpoints have
        )
        self.stacks: tuple[Stack, ...] = self.saved.stacks
        self.batch_size, self.shards, self.seed = batch_size, shards, seed
        self._features = tuple(features)
        self.layouts = {
            stack.name: CoreLayout(stack.layout, self.devices, cores.count) for stack in self.stacks
        }
        total = self.devices * cores.count
        self.samples = {stack.name: Samples(stack, batch_size, total) for stack in self.stacks}
        self._form = SavedForm(self.stacks, self.layouts, self._placement)
        self._operations = Operations(
            self.layouts, self.samples, self._placement, emulated=emulated is not None
        )
        self._limits = dict(limits or {})
        self._room: Mapping[str, Limits] = {}
        self._preparers: dict[str, Any] = {}

    # --- state -------------------------------------------------------------------------------

    def init(self, key: jax.Array) -> State:
        """Returns the state before the first step: the very values of `XlaEngine.init`."""

        def start(key: jax.Array) -> State:
            saved = init_saved(self.stacks, self._placement, self.shards, key)
            return self._form.from_saved(saved)

        return jax.jit(start, out_shardings=self.state_sharding())(key)

    def abstract_state(self) -> State:
        """Returns the state's shapes, dtypes, shardings and layouts in memory."""
        shapes = jax.eval_shape(self._form.from_saved, self.saved.abstract_state())
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            shapes,
            self.state_sharding(),
        )

    def state_sharding(self) -> Any:
        """Returns where the state lives, and how: tables and slots in SparseCores' own layout."""
        split = self._operations.table_format
        return state_shardings(self.stacks, split, self._placement.everywhere)

    def abstract_saved(self) -> State:
        """Returns the shapes of what a checkpoint has, which are `XlaEngine`'s."""
        return self.saved.abstract_state()

    def to_saved(self, state: State) -> State:
        """Returns the state as checkpoints have it; both are in memory until one is let go.

        Arrays that are alike in both, as those of rows of 128 lanes, are not made anew.
        """
        other = [s.name for s in self.stacks if self.layouts[s.name].shape != s.layout.shape]

        def part(whole: State) -> State:
            return {**whole, "stacks": {name: whole["stacks"][name] for name in other}}

        where = part(self.saved.state_sharding())
        made: State = jax.jit(self._form.to_saved, out_shardings=where)(part(state))
        return {**made, "stacks": {**state["stacks"], **made["stacks"]}}

    def from_saved(self, saved: State) -> State:
        """Returns the state of a checkpoint; the inverse of `to_saved`."""
        made = jax.jit(self._form.from_saved, out_shardings=self.state_sharding())
        state: State = made(saved)
        return state

    def vectors(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and dtypes of what `combine` gives of `batch_size` examples."""
        return self.saved.vectors(batch_size)

    # --- host --------------------------------------------------------------------------------

    def prepare(self, columns: Mapping[str, Any]) -> CoreLookupsByStack:
        """Returns what a batch asks of the tables, as numpy arrays; in the input threads.

        Args:
          columns: by name, as for `XlaEngine.prepare`.

        Raises:
          DataError: as there; or a batch that needs more than SparseCores or `limits` have room
            for, with the number of ids that would be dropped.
        """
        return {stack.name: self._preparer(stack)(columns) for stack in self.stacks}

    def _preparer(self, stack: Stack) -> Any:
        if stack.name not in self._preparers:
            # The library takes its time to import, and who only converts needs none of it.
            from monolith_jax.embedding.sparsecore.prepare import Preparer

            self._preparers[stack.name] = Preparer(
                stack,
                self.layouts[stack.name],
                self.batch_size,
                self.cores.rows,
                self._limits.get(stack.name),
                self._room.get(stack.name),
            )
        return self._preparers[stack.name]

    def make_room(self, room: Mapping[str, Limits]) -> None:
        """Pads every batch that these limits hold to them: those of a program that is there.

        Args:
          room: by stack; a batch that they do not hold gets limits of its own there.
        """
        self._room, self._preparers = room, {}

    def lookups_sharding(self, lookups: CoreLookupsByStack) -> Any:
        """Returns a sharding for every array of `lookups`: the leading axis over the devices."""
        return jax.tree.map(lambda _: self._placement.by_row, lookups)

    # --- inside the jitted step --------------------------------------------------------------

    def overflowed(self, lookups: CoreLookupsByStack) -> jax.Array:
        """Returns 0: no row takes a detour here, and none is dropped."""
        return jnp.float32(0.0)

    def gather(self, state: State, lookups: CoreLookupsByStack) -> Rows:
        """Returns the samples' vectors by stack, float32 [samples of all devices, width].

        A sample is a feature of an example, combined, or one place of a sequence (`Samples`).
        """
        return {
            stack.name: self._operations.lookup(
                stack, lookups[stack.name], state["stacks"][stack.name]["value"]
            )
            for stack in self.stacks
        }

    def combine(
        self, rows: Rows, lookups: CoreLookupsByStack, after: Sequence[jax.Array] = ()
    ) -> dict[str, jax.Array]:
        """Returns each feature's vectors, float32 [batch, dim], in the order of the features.

        A sequence is [batch, max_length, dim], with its mask behind it (`FeatureConfig`). They are
        the gathered vectors, put in order, and nothing waits for `after`.
        """

        def local(rows: Rows) -> dict[str, jax.Array]:
            found: dict[str, jax.Array] = {}
            for stack in self.stacks:
                samples = self.samples[stack.name]
                for part in stack.features:
                    wide = samples.of_part(rows[stack.name], part)
                    vector = wide[..., : stack.layout.dim]
                    if part.multiplier != 1.0:
                        vector = _scale_gradient(vector, part.multiplier)
                    found[part.name] = vector
            return found

        found = self._placement.split(local, (BY_ROW,))(rows)
        for stack in self.stacks:
            found |= lookups[stack.name].masks
        return assemble(found, self._features)

    def update(
        self, state: State, lookups: CoreLookupsByStack, rows: Rows, gradients: Rows
    ) -> State:
        """Returns the state after one step of each table's rule on the touched rows.

        Args:
          state: donate it to the jit that this runs in; it is written in place.
          lookups: of this batch.
          rows: unused; SparseCores read them again.
          gradients: of the samples' vectors, shaped as `rows`.
        """
        stacks = {}
        for stack in self.stacks:
            name, arrays = stack.name, state["stacks"][stack.name]
            slots = [arrays["slots"][slot.name] for slot in stack.rule.slots]
            numbers = numbers_of(stack.rule, arrays["scalars"], state["step"])
            value, *slots = self._operations.update(
                stack, lookups[name], (arrays["value"], *slots), gradients[name], numbers
            )
            stacks[name] = {
                "value": value,
                "slots": {slot.name: s for slot, s in zip(stack.rule.slots, slots, strict=True)},
                "scalars": as_float32(stack.rule.advance(arrays["scalars"])),
            }
        return {"step": state["step"] + 1, "stacks": stacks}

    def gradient_squares(
        self, lookups: CoreLookupsByStack, gradients: Rows
    ) -> dict[str, jax.Array]:
        """Raises: the gradients of rows exist on SparseCores alone, for the length of an operation.

        Raises:
          ConfigError: always.
        """
        raise ConfigError(
            "SparseCores sum and use the gradients of rows in one operation: they cannot be "
            "measured or clipped; take the xla engine"
        )

    # --- rows by their ids -------------------------------------------------------------------

    def table_rows(
        self, state: State, table: str, start: int = 0, stop: int | None = None
    ) -> np.ndarray:
        """Returns rows `start` to `stop` (None: the last) of a table, float32 [n, dim]."""
        return self.saved.table_rows(self.to_saved(state), table, start, stop)

    def table_slots(
        self, state: State, table: str, start: int = 0, stop: int | None = None
    ) -> dict[str, np.ndarray]:
        """Returns the slots of rows `start` to `stop`, by name, [n, dim]."""
        return self.saved.table_slots(self.to_saved(state), table, start, stop)

    def with_table(
        self,
        state: State,
        table: str,
        rows: np.ndarray | None = None,
        slots: Mapping[str, np.ndarray] | None = None,
        start: int = 0,
    ) -> State:
        """Returns the state with rows of a table, or their slots, replaced from `start` on."""
        saved = self.saved.with_table(self.to_saved(state), table, rows, slots, start)
        return self.from_saved(saved)


def _refuse(
    tables: Sequence[TableConfig],
    batch_size: int,
    device: Any,
    devices: int,
    emulated: SparseCores | None,
) -> None:
    """Raises if SparseCores cannot keep these tables."""
    if emulated is None:
        reasons = refusals(tables, batch_size, device, devices)
    else:
        missing = library_missing()  # its host code runs all the same
        reasons = (*table_refusals(tables), *((missing,) if missing else ()))
        reasons += batch_refusals(batch_size, devices * emulated.count)
    if reasons:
        raise ConfigError(f"the sparsecore engine cannot serve: {'; '.join(reasons)}")
