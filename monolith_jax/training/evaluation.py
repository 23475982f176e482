"""Evaluation: predictions for every example of some days, and their exact metrics."""

from collections.abc import Callable
from typing import Any

import numpy as np

from monolith_jax import distributed
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.errors import CheckpointError, ConfigError
from monolith_jax.input import Dataset, prefetch
from monolith_jax.task import TaskConfig
from monolith_jax.training import metrics
from monolith_jax.training.data import ahead, evaluation_dataset
from monolith_jax.training.program import Program, TrainState, devices_for
from monolith_jax.training.restore import restore
from monolith_jax.training.run_dir import RunDir


def predict_all(
    program: Program,
    state: TrainState,
    dataset: Dataset,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Returns outputs, labels and weights of all examples, in the data's order.

    Args:
      program: the task's functions; batches are prepared ahead as its `input` says.
      state: any state of it; not donated.
      dataset: the examples, without shuffling.
      stop: polled before every batch; True ends the evaluation without a result.

    Returns:
      Three [n] float32 arrays, padding included (its weight is 0), or None if stopped.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    pending = None

    def make(k: int) -> tuple[Any, np.ndarray, np.ndarray]:
        batch = dataset.batch(k)
        return program.prepare(batch), program.labels(batch.columns), batch.weights

    with prefetch(make, 0, dataset.steps_per_epoch, **ahead(program.task.input)) as batches:
        for _, (batch, label, weight) in batches:
            if stop():
                return None
            outputs = program.predict(state, batch)
            # Read one batch late, so that the device never waits for the host.
            if pending is not None:
                parts.append(tuple(map(np.asarray, pending)))
            pending = (outputs, label, weight)
    if pending is not None:
        parts.append(tuple(map(np.asarray, pending)))
    outputs, labels, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return outputs, labels, weights


def evaluate(
    program: Program,
    state: TrainState,
    dataset: Dataset,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Returns the exact metrics over `dataset`, or None if `stop` said so."""
    predictions = predict_all(program, state, dataset, stop=stop)
    if predictions is None:
        return None
    return metrics.evaluate(*predictions, loss=program.task.loss)


def evaluate_checkpoint(
    task: TaskConfig, model_dir: str, name: str, step: int | None = None
) -> dict[str, float]:
    """Evaluates a checkpoint of a model dir on the task's evaluation days.

    Args:
      task: the config, as it was trained; `input.eval_start_date` must be set.
      model_dir: the run's folder; nothing in it is changed.
      name: the model's key.
      step: which checkpoint; default: the newest.

    Returns:
      The exact metrics, with the checkpoint's "step".

    Raises:
      CheckpointError: the folder is another model's, or has no such checkpoint.
      ConfigError: there are no evaluation days.
    """
    run_dir = RunDir(model_dir, name, task)
    run_dir.check()
    dataset = evaluation_dataset(task)
    if dataset is None:
        raise ConfigError("nothing to evaluate on: set input.eval_start_date and eval_end_date")
    checkpoints = Checkpoints(str(run_dir.checkpoints), read_only=True)
    steps = distributed.from_primary(checkpoints.steps())
    if not steps or (step is not None and step not in steps):
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise CheckpointError(f"{run_dir.path} has {wanted}; there are: {steps or 'none'}")
    step = steps[-1] if step is None else step
    program = Program(task, devices_for(task))
    restored, _ = restore(checkpoints, step, program)
    checkpoints.close()
    state = program.from_saved(restored["state"])
    values = evaluate(program, state, dataset)
    return {"step": float(step)} | (values or {})
