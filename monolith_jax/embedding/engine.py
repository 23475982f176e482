"""What a train step needs of embedding tables, whatever keeps them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import jax

from monolith_jax.embedding._lookups import Lookups

State: TypeAlias = dict[str, Any]
"""`{"step": int32 [], "stacks": {stack: {"value", "slots": {name}, "scalars": {name}}}}`.

In a state of records (`_records`) "records" stands for a stack's value and slots, and with a bias
its scalars alone.
"""

Rows: TypeAlias = dict[str, jax.Array]
"""By stack, float32 [D * U, dim]: the rows that a batch touches, each once."""


class Engine(Protocol):
    """What a train step needs of tables; `prepare` runs on the host, the rest inside one jit.

    The step gathers, differentiates with respect to the rows, and updates:

        rows = engine.gather(state, lookups)
        loss, (d_params, d_rows) = jax.value_and_grad(
            lambda params, rows: f(params, engine.combine(rows, lookups)), argnums=(0, 1)
        )(params, rows)
        state = engine.update(state, lookups, rows, d_rows)

    `d_rows` has one row per distinct id, summed over its occurrences in the whole batch: it is
    TF1's deduplicated gradient, to be clipped or measured as it is (padding rows are zero; in
    `rows` they hold anything).
    """

    def init(self, key: jax.Array) -> State:
        """Returns the state before the first step, on its devices."""

    def abstract_state(self) -> State:
        """Returns the state's shapes, dtypes and shardings as `jax.ShapeDtypeStruct`s."""

    def state_sharding(self) -> Any:
        """Returns the state's shardings, with the layouts in memory where those matter."""

    def abstract_saved(self) -> State:
        """Returns the shapes of what checkpoints have, the same for every engine."""

    def to_saved(self, state: State) -> State:
        """Returns the state as checkpoints have it."""

    def from_saved(self, saved: State) -> State:
        """Returns the state of a checkpoint."""

    def prepare(self, columns: Mapping[str, Any]) -> Lookups:
        """Returns what a batch asks of the tables, as numpy arrays."""

    def lookups_sharding(self, lookups: Lookups) -> Any:
        """Returns the shardings to `jax.device_put` the lookups with."""

    def overflowed(self, lookups: Lookups) -> jax.Array:
        """Returns how many rows took a detour because an exchange was full, float32 []."""

    def gather(self, state: State, lookups: Lookups) -> Rows:
        """Returns the touched rows, each read once."""

    def combine(
        self, rows: Rows, lookups: Lookups, after: Sequence[jax.Array] = ()
    ) -> dict[str, jax.Array]:
        """Returns each feature's vectors, [batch, dim]; differentiable in `rows`.

        Args:
          rows: as gathered.
          lookups: of the batch.
          after: arrays that the derivative may wait for, such as the parameters' gradients: the
            vectors, which those are made of, need not stay in memory then. They change no number.
        """

    def update(self, state: State, lookups: Lookups, rows: Rows, gradients: Rows) -> State:
        """Returns the state after one step of every table's rule on the touched rows."""
