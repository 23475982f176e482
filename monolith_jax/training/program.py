"""A task as jitted functions on the devices at hand: init, one donated train step, predict.

The step reads each touched row once, differentiates the loss with respect to the dense parameters
and those rows, and writes both back. Everything that belongs to a table's own layout stays in the
embedding engine; everything here is jax and optax.
"""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from monolith_jax._host_arrays import empty
from monolith_jax.cpu_memory import step_options
from monolith_jax.embedding._placement import place, place_all
from monolith_jax.errors import ConfigError, DataError, UserError
from monolith_jax.input import Batch
from monolith_jax.optimizers import as_optax
from monolith_jax.task import TaskConfig
from monolith_jax.training import gradients, metrics
from monolith_jax.training.engines import make_engine

AXIS = "data"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a step reads and writes.

    Attributes:
      step: int32 scalar, the number of steps done.
      params: the Flax module's parameters.
      opt_state: the optax state of `params`.
      tables: the embedding engine's state: tables, slots and their scalars.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    tables: Any


class Program:
    """The functions of a task, compiled for the devices at hand.

    Args:
      task: the config.
      devices: the devices to use; the batch and the tables are split over them.

    Raises:
      ConfigError: the batch size does not divide over the devices; names the ones that do.
    """

    def __init__(self, task: TaskConfig, devices: list[jax.Device]) -> None:
        self.task = task
        self.mesh = Mesh(np.array(devices), (AXIS,))
        _check_batch_size(task.input.batch_size, len(devices))
        self.module = task.instantiate()
        self.engine, self.choice = make_engine(task, self.mesh, AXIS)
        self.gradients = gradients.Gradients(task, self.engine)
        self._takes_train = "train" in inspect.signature(type(self.module).__call__).parameters
        transforms = [optax.add_decayed_weights(task.weight_decay)] if task.weight_decay else []
        self.optimizer = optax.chain(*transforms, as_optax(task.optimizer))
        self._replicated = NamedSharding(self.mesh, P())
        self._by_example = NamedSharding(self.mesh, P(AXIS))

    @functools.cached_property
    def train_step(self) -> Any:
        """The jitted step: (state, window, batch) -> (state, window); the state is donated.

        Its arguments and results are all of these, each where it is said to lie, so that it can be
        compiled before any of them is there (`monolith_jax.ahead`).
        """
        return self.jit_step(self._train_step)

    @functools.cached_property
    def predict(self) -> Any:
        """The jitted outputs of the module, [batch]: (state, batch) -> logits, or values."""
        # Several processes: each wants all predictions, for the metrics.
        outputs: dict[str, Any] = (
            {"out_shardings": self._replicated} if jax.process_count() > 1 else {}
        )
        return jax.jit(self._predict, compiler_options=self.compiler_options, **outputs)

    @functools.cached_property
    def compiler_options(self) -> dict[str, Any]:
        """What step and predictions are compiled with: a form of memory that suits CPUs."""
        return step_options(self.mesh.devices.flat[0], self._largest_temporary())

    def jit_step(self, step: Any) -> Any:
        """Returns a function of the train step's arguments, jitted as the train step is."""
        return jax.jit(
            step,
            donate_argnums=0,
            keep_unused=True,
            out_shardings=self.train_shardings(),
            compiler_options=self.compiler_options,
        )

    def init(self, seed: int) -> TrainState:
        """Returns the state before the first step; the same on any number of devices."""
        params_key, tables_key = jax.random.split(jax.random.key(seed))
        make = jax.jit(self._init_dense, out_shardings=self._replicated)
        step, params, opt_state = make(params_key)
        return TrainState(step, params, opt_state, self.engine.init(tables_key))

    def abstract_state(self) -> TrainState:
        """Returns the state's shapes, dtypes and shardings, for restoring onto these devices."""
        dense = jax.eval_shape(self._init_dense, jax.random.key(0))
        step, params, opt_state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated), dense
        )
        return TrainState(step, params, opt_state, self.engine.abstract_state())

    def to_saved(self, state: TrainState) -> TrainState:
        """Returns a state as checkpoints hold it, which is the same for every engine."""
        return dataclasses.replace(state, tables=self.engine.to_saved(state.tables))

    def from_saved(self, saved: TrainState) -> TrainState:
        """Returns a checkpoint's state as the step takes it; the inverse of `to_saved`."""
        return dataclasses.replace(saved, tables=self.engine.from_saved(saved.tables))

    def abstract_checkpoint(self) -> dict[str, Any]:
        """Returns what a checkpoint holds, `{"state", "window"}`, as shapes with shardings."""
        window = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated),
            jax.eval_shape(self._zero_window),
        )
        saved = dataclasses.replace(self.abstract_state(), tables=self.engine.abstract_saved())
        return {"state": saved, "window": window}

    def _zero_window(self) -> metrics.Window:
        return metrics.empty_window(self.task.loss) | self.gradients.empty()

    def empty_window(self) -> metrics.Window:
        """Returns metrics without examples, on every device."""
        window = self._zero_window()
        if jax.process_count() == 1:
            return jax.device_put(window, self._replicated)
        return {name: place(np.asarray(zero), self._replicated) for name, zero in window.items()}

    def prepare(self, batch: Batch) -> dict[str, Any]:
        """Turns a batch of columns into the step's arguments, on the devices.

        Host work (deduplicating the ids, above all): runs in the input threads, several at once.
        """
        size = self.task.input.batch_size
        lookups = self.engine.prepare(batch.columns)
        dense = empty((size, len(self.task.dense)), np.float32)
        if self.task.dense:
            np.stack([_floats(batch.columns, n) for n in self.task.dense], axis=1, out=dense)
        arrays = {
            "dense": dense,
            "label": self.labels(batch.columns),
            "weight": batch.weights,
        }
        shardings = dict.fromkeys(arrays, self._by_example)
        placed: dict[str, Any] = place_all(
            arrays | {"lookups": lookups},
            shardings | {"lookups": self.engine.lookups_sharding(lookups)},
        )
        return placed

    def train_shardings(self) -> tuple[TrainState, NamedSharding]:
        """Returns where a step's state and window lie, before it and after it.

        Every process reads the window, so each has it whole.
        """
        state = jax.tree.map(lambda x: x.sharding, self.abstract_state())
        # Tables may have a layout in memory of their own, which a shape's sharding leaves out.
        tables = self.engine.state_sharding()
        return dataclasses.replace(state, tables=tables), self._replicated

    def labels(self, columns: Mapping[str, Any]) -> np.ndarray:
        """Returns the [batch] labels of a batch's columns, float32.

        Raises:
          DataError: a label outside [0, 1] where the loss is logloss.
        """
        label = self.task.label
        values = _floats(columns, label.column)
        if label.threshold is not None:
            values = (values >= label.threshold).astype(np.float32)
        if self.task.loss == "logloss" and not np.all((values >= 0.0) & (values <= 1.0)):
            bad = values[(values < 0.0) | (values > 1.0)]
            found = f"found {bad[0]}" if bad.size else "found a value that is no number"
            raise DataError(
                f"label column {label.column!r}: logloss wants labels within [0, 1], {found}; "
                "set label.threshold, or loss to squared"
            )
        return values

    def _init_dense(self, key: jax.Array) -> tuple[jax.Array, Any, optax.OptState]:
        features = {name: jnp.zeros(x.shape, x.dtype) for name, x in self.engine.vectors(1).items()}
        variables = self.module.init(key, features, jnp.zeros((1, len(self.task.dense))))
        extra = sorted(set(variables) - {"params"})
        if extra:
            raise UserError(
                f"{type(self.module).__name__} has the variable collections {extra}; the train "
                "step carries parameters only"
            )
        params = variables.get("params", {})
        return jnp.zeros((), jnp.int32), params, self.optimizer.init(params)

    def _largest_temporary(self) -> int:
        """Returns the bytes of the largest array that a device's step makes, as far as is known.

        That is the vectors of all ids, or the widest layer's output, of a device's examples.
        """
        dims = {table.name: table.dim for table in self.task.tables}
        vectors = sum(dims[one.table] * one.max_length for one in self.task.features)
        _, params, _ = jax.eval_shape(self._init_dense, jax.random.key(0))
        widths = [size for x in jax.tree.leaves(params) for size in x.shape]
        examples = self.task.input.batch_size // self.mesh.size
        return 4 * examples * max([vectors, *widths])

    def _apply(self, params: Any, embeddings: Any, dense: jax.Array, key: Any) -> jax.Array:
        """Runs the module; `key` is None outside training."""
        train = {"train": key is not None} if self._takes_train else {}
        rngs = {} if key is None else {"dropout": key}
        return self.module.apply({"params": params}, embeddings, dense, rngs=rngs, **train)

    def _predict(self, state: TrainState, batch: dict[str, Any]) -> jax.Array:
        """Returns the module's [batch] outputs: logits, or values."""
        rows = self.engine.gather(state.tables, batch["lookups"])
        embeddings = self.engine.combine(rows, batch["lookups"])
        return self._apply(state.params, embeddings, batch["dense"], None)

    def _loss(
        self, params: Any, embeddings: Any, batch: dict[str, Any], key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the mean loss that `TaskConfig` defines, and the outputs."""
        outputs = self._apply(params, embeddings, batch["dense"], key)
        losses = metrics.example_losses(self.task.loss, outputs, batch["label"])
        if self.task.embedding_l2:
            vectors = [embeddings[feature.name] for feature in self.task.features]
            squares = [jnp.sum(jnp.square(e), axis=tuple(range(1, e.ndim))) for e in vectors]
            losses = losses + self.task.embedding_l2 * sum(squares)
        weight = batch["weight"]
        # A batch has at least one example, so the sum of the weights is not 0.
        return jnp.sum(losses * weight) / jnp.sum(weight), outputs

    def _differentiate(
        self, params: Any, rows: Any, batch: dict[str, Any], key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any, Any]:
        """Returns loss and outputs, and the gradients of the parameters and of the rows.

        In two parts, since the rows' gradients may wait for the parameters'.
        """
        lookups = batch["lookups"]
        embeddings = self.engine.combine(rows, lookups)
        loss, backward, outputs = jax.vjp(
            lambda params, embeddings: self._loss(params, embeddings, batch, key),
            params,
            embeddings,
            has_aux=True,
        )
        of_params, of_embeddings = backward(jnp.ones_like(loss))
        after = jax.tree.leaves(of_params)
        _, backward = jax.vjp(lambda rows: self.engine.combine(rows, lookups, after), rows)
        (of_rows,) = backward(of_embeddings)
        return loss, outputs, of_params, of_rows

    def _train_step(
        self, state: TrainState, window: metrics.Window, batch: dict[str, Any]
    ) -> tuple[TrainState, metrics.Window]:
        """One step: gather, forward, backward, write both halves back, add up the metrics."""
        key = jax.random.fold_in(jax.random.key(self.task.train.seed), state.step)
        rows = self.engine.gather(state.tables, batch["lookups"])
        loss, outputs, dense_gradients, row_gradients = self._differentiate(
            state.params, rows, batch, key
        )
        dense_gradients, row_gradients, norms = self.gradients(
            dense_gradients, row_gradients, batch["lookups"]
        )
        tables = self.engine.update(state.tables, batch["lookups"], rows, row_gradients)
        updates, opt_state = self.optimizer.update(dense_gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        window, before = gradients.split(window)
        overflowed = self.engine.overflowed(batch["lookups"])
        window = metrics.add_batch(
            window, self.task.loss, loss, outputs, batch["label"], batch["weight"], overflowed
        )
        window |= {name: before[name] + norm for name, norm in norms.items()}
        return TrainState(state.step + 1, params, opt_state, tables), window


def _floats(columns: Mapping[str, Any], name: str) -> np.ndarray:
    return np.asarray(columns[name], np.float32)


def _check_batch_size(batch_size: int, devices: int) -> None:
    if batch_size % devices:
        below = batch_size // devices * devices
        near = [n for n in (below, below + devices) if n]
        raise ConfigError(
            f"input.batch_size {batch_size} does not divide over {devices} devices; "
            f"valid are the multiples of {devices}, the nearest {' and '.join(map(str, near))} "
            "(or use fewer devices: --train.devices)"
        )


def devices_for(task: TaskConfig) -> list[jax.Device]:
    """Returns the devices that a task asks for.

    Raises:
      ConfigError: it asks for more than there are, or for a part of several processes' devices.
    """
    devices = jax.devices()
    wanted = task.train.devices or len(devices)
    if jax.process_count() > 1 and wanted != len(devices):
        raise ConfigError(
            f"train.devices {wanted}: {jax.process_count()} processes use all their devices, "
            f"{len(devices)} (0 takes all)"
        )
    if not 0 < wanted <= len(devices):
        raise ConfigError(f"train.devices {wanted}: jax finds {len(devices)} {devices[0].platform}")
    return devices[:wanted]
