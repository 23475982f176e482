"""Evaluation: predictions for every example of some days, and their exact metrics."""

from collections.abc import Callable

import numpy as np

from monolith_jax.input import Dataset, prefetch
from monolith_jax.training import metrics
from monolith_jax.training.program import Program, TrainState


def predict_all(
    program: Program,
    state: TrainState,
    dataset: Dataset,
    *,
    buffer: int = 2,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Returns outputs, labels and weights of all examples, in the data's order.

    Args:
      program: the task's functions.
      state: any state of it; not donated.
      dataset: the examples, without shuffling.
      buffer: batches prepared ahead.
      stop: polled before every batch; True ends the evaluation without a result.

    Returns:
      Three [n] float32 arrays, padding included (its weight is 0), or None if stopped.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    pending = None
    with prefetch(
        lambda k: program.prepare(dataset.batch(k)), 0, dataset.steps_per_epoch, buffer=buffer
    ) as batches:
        for _, batch in batches:
            if stop():
                return None
            outputs = program.predict(state, batch)
            # Read one batch late, so that the device never waits for the host.
            if pending is not None:
                parts.append(tuple(map(np.asarray, pending)))
            pending = (outputs, batch["label"], batch["weight"])
    if pending is not None:
        parts.append(tuple(map(np.asarray, pending)))
    outputs, labels, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return outputs, labels, weights


def evaluate(
    program: Program,
    state: TrainState,
    dataset: Dataset,
    *,
    buffer: int = 2,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Returns the exact metrics over `dataset`, or None if `stop` said so."""
    predictions = predict_all(program, state, dataset, buffer=buffer, stop=stop)
    if predictions is None:
        return None
    return metrics.evaluate(*predictions, loss=program.task.loss)
