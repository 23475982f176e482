"""The oracle: TensorFlow 1's own optimizers, run over fixed gradients in one graph."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

ROWS, DIM, TOUCHED = 24, 4, 12
TF_CLASSES = {
    "adagrad": "AdagradOptimizer",
    "momentum": "MomentumOptimizer",
    "rmsprop": "RMSPropOptimizer",
    "adam": "AdamOptimizer",
    "sgd": "GradientDescentOptimizer",
    "ftrl": "FtrlOptimizer",
}


@dataclass(frozen=True)
class Gradients:
    """What every case sees: a start value, and per step a gradient and the rows it belongs to."""

    value: np.ndarray  # [ROWS, DIM]
    dense: np.ndarray  # [steps, ROWS, DIM]
    sparse: np.ndarray  # [steps, TOUCHED, DIM]
    rows: np.ndarray  # [steps, TOUCHED], with duplicates

    def deduplicated(self, step: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Returns (unique rows, summed gradients) of one step, padded to TOUCHED rows.

        The padding repeats no row: it names rows past the table, which scatters drop.
        """
        unique, inverse = np.unique(self.rows[step], return_inverse=True)
        summed = np.zeros((TOUCHED, DIM), np.float32)
        np.add.at(summed, inverse, self.sparse[step] * np.float32(scale))
        padding = ROWS + np.arange(TOUCHED - len(unique))
        return np.concatenate([unique, padding]).astype(np.int32), summed


State = dict[str, np.ndarray]


def make_gradients(steps: int) -> Gradients:
    rng = np.random.default_rng(20)
    rows = rng.zipf(1.3, (steps, TOUCHED)) % ROWS
    return Gradients(
        value=rng.normal(size=(ROWS, DIM)).astype(np.float32),
        dense=rng.normal(size=(steps, ROWS, DIM)).astype(np.float32),
        sparse=rng.normal(size=(steps, TOUCHED, DIM)).astype(np.float32),
        rows=rows.astype(np.int32),
    )


@pytest.fixture(scope="session")
def gradients() -> Gradients:
    """A thousand steps of gradients with many duplicate rows."""
    return make_gradients(1_000)


@pytest.fixture(scope="session")
def tf1_states(tf: Any) -> Callable[..., dict[str, State]]:
    """Returns a function that trains every case in TF1's graph mode.

    A case is (optimizer, its arguments, scale of the gradients, names of the slots to return);
    all cases of a call train at once, a session run per step. Returns {case id: {"value": ...,
    slot name: ...}}.
    """

    def states(
        cases: Mapping[str, tuple[str, dict[str, Any], float, Sequence[str]]],
        data: Gradients,
        *,
        sparse: bool,
    ) -> dict[str, State]:
        graph = tf.Graph()
        with graph.as_default():
            step = tf.compat.v1.placeholder(tf.int32, [])
            gradient = tf.constant(data.sparse if sparse else data.dense)[step]
            rows = tf.constant(data.rows)[step]
            scaled = {case[2]: gradient * np.float32(case[2]) for case in cases.values()}
            fetch, train = {}, []
            for i, (key, (rule, kwargs, scale, slots)) in enumerate(cases.items()):
                variable = tf.compat.v1.Variable(data.value, name=f"v{i}", use_resource=True)
                optimizer = getattr(tf.compat.v1.train, TF_CLASSES[rule])(**kwargs)
                g = scaled[scale]
                g = tf.IndexedSlices(g, rows, data.value.shape) if sparse else g
                train.append(optimizer.apply_gradients([(g, variable)]))
                get = {slot: optimizer.get_slot(variable, _tf_slot(rule, slot)) for slot in slots}
                fetch[key] = {"value": variable, **get}
            update = tf.group(*train)
            with tf.compat.v1.Session(graph=graph) as session:
                session.run(tf.compat.v1.global_variables_initializer())
                run = session.make_callable(update, [step])
                for i in range(len(data.dense)):
                    run(i)
                return session.run(fetch)

    return states


def _tf_slot(rule: str, slot: str) -> str:
    """Returns the name by which TF's `get_slot` knows one of our slots."""
    renamed = {"ms": "rms", ("ftrl", "accumulator"): "accum"}
    return renamed.get((rule, slot), renamed.get(slot, slot))
