"""Touched-row tables in plain XLA, on every backend.

It is put together here: `_forms` chooses how each stack is kept and reached; `_state` makes, saves
and exports the state; `_host` makes the lookups of a batch; in the step `_step` reads and updates
rows, and `_combine` makes vectors of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from monolith_jax.embedding import _ragged
from monolith_jax.embedding._combine import combine_features, picker, receive
from monolith_jax.embedding._forms import forms_of
from monolith_jax.embedding._host import Host
from monolith_jax.embedding._lookups import Lookups
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._parts import assemble, vector_shapes
from monolith_jax.embedding._placement import BY_ROW, EVERYWHERE, Placement
from monolith_jax.embedding._ragged import Exchange
from monolith_jax.embedding._reach import Form
from monolith_jax.embedding._reshard import tables_as_stored
from monolith_jax.embedding._room import Room
from monolith_jax.embedding._stacks import build_stacks, check_rows
from monolith_jax.embedding._state import TableKeeper
from monolith_jax.embedding._step import Step
from monolith_jax.embedding.config import FeatureConfig, TableConfig
from monolith_jax.embedding.engine import Rows, State
from monolith_jax.errors import ConfigError


class XlaEngine(TableKeeper):
    """Touched-row tables in plain XLA, on one device or sharded over a mesh axis.

    Cost of a step, per device: the touched rows and their slots once in and once out (TF's Adam:
    the whole table), the ids' rows `[batch * ids, dim]` once forward and once backward, and, on D
    devices, two all_to_alls of `D * C` rows; C is near the mean of what one device asks of another,
    and what a busy pair has beyond it takes two hops more (`_relay`). No
    dense gradient of a table exists, and with a donated state no copy of one.

    Args:
      tables: the tables; those of equal `dim`, `optimizer`, `dtype` and `sharding` share an array.
      features: the lookups.
      batch_size: examples of a batch, over all devices; a multiple of the devices.
      mesh: the devices; None: jax's default device.
      axis: the mesh axis that batch and tables are split over.
      shards: virtual shards, the unit of distribution. Part of the layout of a checkpoint: it must
        stay the same, and the number of devices must divide it.
      seed: of the stochastic rounding of bfloat16 tables; a run that goes on needs the same.
      form: how rows are reached: "rows" (on CPUs by kernels of our own, `_cpu`), "lines", "words",
        parts of lines by DMA, or "records", a row, its slots and its bias side by side; "auto":
        rows on CPU and GPU, words on later TPUs, lines on TPU v4 and v5e, or records where they
        move less (`_record_choice`). The same numbers are read and written in every form.
      exchange: how rows travel between devices: "buckets", of one size for every pair, on every
        backend; "ragged", each pair's own number, where the backend can (TPUs but v5e); "auto":
        what compiles to the better program (`_ragged`). No id is dropped by either, and both bring
        the same numbers.

    Raises:
      ConfigError: names twice, unknown tables, batch size or devices that do not divide.
      UserError: in a program of several processes.

    Example:
      >>> import numpy as np
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
        seed: int = 0,
        form: Form = "auto",
        exchange: Exchange = "auto",
    ) -> None:
        placement = Placement(mesh, axis)
        _check_divisible(shards, batch_size, placement.devices)
        stacks = build_stacks(tables, features, shards)
        check_rows(stacks, placement.devices)
        device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
        forms = forms_of(stacks, form, exchange, device, placement.devices)
        super().__init__(stacks, forms.records, placement, shards)
        self.batch_size = batch_size
        self.seed = seed
        self.leads, self.asking = forms.leads, forms.asking
        self.ragged, self.reach = forms.ragged, forms.reach
        self._tables, self._features = tuple(tables), tuple(features)
        self._options: Any = {
            "mesh": mesh,
            "axis": axis,
            "shards": shards,
            "seed": seed,
            "form": form,
            "exchange": exchange,
        }
        self._pick, self._waits = picker(device), device.platform == "cpu"
        self._host = Host(forms, batch_size, placement)
        self._step = Step(stacks, forms, placement, seed)

    def with_sharding(self, stored: Mapping[str, str]) -> "XlaEngine":
        """Returns an engine on the same devices with its tables sharded as a checkpoint has them.

        Args:
          stored: by table, "mod" or "div"; a table that is not there was dealt out by "mod".
        """
        tables = tables_as_stored(self._tables, stored)
        return XlaEngine(tables, self._features, batch_size=self.batch_size, **self._options)

    def vectors(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and dtypes of what `combine` gives of `batch_size` examples."""
        return vector_shapes(self._features, self._tables, batch_size)

    # --- host ---------------------------------------------------------------------------------

    def prepare(self, columns: Mapping[str, Any]) -> Lookups:
        """Returns what a batch asks of the tables: distinct rows, and where each id finds its row.

        Runs on the host, in the input threads, several at once. Shapes are chosen from this batch
        alone, in few sizes, so that a few compiled programs serve a whole run. Where there are
        several processes, each makes its own devices' part, and the others' are zeros.

        Args:
          columns: by name, int64 [batch] or [batch, k], or ragged (`values`, `offsets`).

        Raises:
          DataError: a missing or misshapen column, an id outside its table, too many ids; names
            the feature, the example and the id.
        """
        return self._host.prepare(columns)

    def make_room(self, room: Mapping[str, Room]) -> None:
        """Pads every batch that these sizes hold to them: those of a program that is there already.

        Args:
          room: by stack; a batch that one does not hold gets sizes of its own there.
        """
        self._host.make_room(room)

    def lookups_sharding(self, lookups: Lookups) -> Any:
        """Returns a sharding for every array of `lookups`: the leading axis over the devices."""
        return jax.tree.map(lambda _: self._placement.by_row, lookups)

    # --- inside the jitted step ---------------------------------------------------------------

    def overflowed(self, lookups: Lookups) -> jax.Array:
        """Returns how many rows reach their askers by a third device, float32 []; none is lost."""
        relays = [asked.relay for asked in lookups.values() if asked.relay is not None]
        return sum((jnp.sum(relay != NONE) for relay in relays), jnp.int32(0)).astype(jnp.float32)

    def gather(self, state: State, lookups: Lookups) -> Rows:
        """Returns the touched rows, float32 [D * U, dim] by stack, each read once by its owner.

        What padding rows hold is not said: no id points at them, their gradient is 0, and `update`
        leaves them out.
        """
        return self._step.gather(state, lookups)

    def combine(
        self, rows: Rows, lookups: Lookups, after: Sequence[jax.Array] = ()
    ) -> dict[str, jax.Array]:
        """Returns each feature's vectors, float32 [batch, dim], in the order of the features.

        A sequence is [batch, max_length, dim], with its mask behind it (`FeatureConfig`).
        Differentiable with respect to `rows`: the gradient of a row is the sum over all the places
        that used it, on all devices.

        Args:
          rows: as gathered.
          lookups: of the batch.
          after: see `Engine.combine`; only CPUs wait.
        """

        def local(rows: Rows, lookups: Lookups, after: Sequence[jax.Array]) -> dict[str, jax.Array]:
            found: dict[str, jax.Array] = {}
            for stack in self.stacks:
                here, asked = rows[stack.name], lookups[self.leads[stack.name].name]
                if stack.name in self.ragged:
                    here = _ragged.receive(here, asked, stack.layout, self._placement.axis)
                elif self.devices > 1:
                    here = receive(here, asked, self._placement.axis)
                found |= combine_features(
                    here, asked.index, asked.weights, stack.features, self._pick, after
                )
            return found

        split = self._placement.split(local, (BY_ROW, BY_ROW, EVERYWHERE))
        found = split(rows, lookups, tuple(after) if self._waits else ())
        # A dict that went through shard_map comes back with its keys sorted.
        return assemble(found, self._features)

    def update(self, state: State, lookups: Lookups, rows: Rows, gradients: Rows) -> State:
        """Returns the state after one step of each table's rule on the touched rows.

        Args:
          state: donate it to the jit that this runs in; it is written in place.
          lookups: of this batch.
          rows: as gathered from `state` with `lookups`.
          gradients: shaped as `rows`.
        """
        return self._step.update(state, lookups, rows, gradients)

    def gradient_squares(self, lookups: Lookups, gradients: Rows) -> dict[str, jax.Array]:
        """Returns the squared norm of each table's gradient, float32 [], by table.

        Args:
          lookups: of the batch.
          gradients: of the rows, as `update` takes them; each row counts once.
        """
        return self._step.gradient_squares(lookups, gradients)


def _check_divisible(shards: int, batch_size: int, devices: int) -> None:
    """Raises where devices would have unequal parts of the tables or of a batch."""
    if shards % devices:
        raise ConfigError(
            f"{devices} devices do not divide the {shards} virtual shards of the tables"
        )
    if batch_size < 1 or batch_size % devices:
        raise ConfigError(f"batch_size {batch_size} does not divide over {devices} devices")
