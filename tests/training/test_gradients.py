"""Gradients clipped together and measured by table, against TensorFlow and plain sums."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import Sgd
from monolith_jax.task import TaskConfig, TrainConfig
from monolith_jax.training import Program, devices_for, metrics, training_dataset

Changed = Callable[..., TaskConfig]
STEPS = 3


@pytest.fixture(scope="module")
def plain(task: TaskConfig, changed: Changed) -> TaskConfig:
    """The small task with rules that subtract the gradient as it is."""
    rule = Sgd(learning_rate=1.0)
    tables = tuple(table.replace(optimizer=rule) for table in task.tables)
    return changed(task, tables=tables, optimizer=rule)


def one_step(task: TaskConfig) -> tuple[dict[str, np.ndarray], Any]:
    """Returns what a step subtracts, by name of parameter or table, and its window."""
    program = Program(task, devices_for(task))
    batch = program.prepare(training_dataset(task).batch(0))
    before = contents(program, program.init(0))
    state, window = program.train_step(program.init(0), program.empty_window(), batch)
    after = contents(program, state)
    return {name: before[name] - after[name] for name in before}, jax.device_get(window)


def contents(program: Program, state: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    for table in program.task.tables:
        found[table.name] = program.engine.table_rows(state.tables, table.name)
    return found


@pytest.fixture(scope="module")
def gradients(plain: TaskConfig) -> dict[str, np.ndarray]:
    """The gradients of one step, neither clipped nor measured."""
    return one_step(plain)[0]


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("share", [0.5, 2.0])
def test_clipping_equals_tensorflows(
    share: float,
    devices: int,
    plain: TaskConfig,
    changed: Changed,
    gradients: dict[str, np.ndarray],
    tf: Any,
) -> None:
    tables = {table.name for table in plain.tables}
    given = []
    for name, gradient in gradients.items():
        if name in tables:  # sparse, each touched row once
            touched = np.flatnonzero(np.abs(gradient).sum(1))
            given.append(tf.IndexedSlices(gradient[touched], touched, gradient.shape))
        else:
            given.append(tf.constant(gradient))
    norm = float(tf.linalg.global_norm(given))
    clipped, _ = tf.clip_by_global_norm(given, share * norm)
    want = {
        name: tf.convert_to_tensor(tensor).numpy()
        for name, tensor in zip(gradients, clipped, strict=True)
    }

    got, window = one_step(changed(plain, train={"clip_norm": share * norm, "devices": devices}))
    assert got.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-6, err_msg=name)
    row = metrics.summarize(window, plain.loss)
    assert row["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert row["clipped"] == (share < 1.0)
    assert "gradient_norm/user" not in row


@pytest.mark.parametrize("devices", [1, 8])
def test_norms_by_table(
    devices: int, plain: TaskConfig, changed: Changed, gradients: dict[str, np.ndarray]
) -> None:
    assert len({(table.dim, table.optimizer) for table in plain.tables}) < len(plain.tables)
    got, window = one_step(changed(plain, train={"gradient_norms": True, "devices": devices}))
    row = metrics.summarize(window, plain.loss)
    squares = {name: float(np.square(g.astype(np.float64)).sum()) for name, g in gradients.items()}
    tables = {table.name for table in plain.tables}
    dense = sum(square for name, square in squares.items() if name not in tables)
    want = {name: squares[name] for name in tables} | {"dense": dense}
    for name, square in want.items():
        assert row[f"gradient_norm/{name}"] == pytest.approx(np.sqrt(square), rel=1e-4), name
    assert row["gradient_norm"] == pytest.approx(np.sqrt(sum(want.values())), rel=1e-4)
    assert "clipped" not in row
    for name, gradient in gradients.items():
        np.testing.assert_allclose(got[name], gradient, rtol=0, atol=1e-6, err_msg=name)


def test_windows_hold_the_root_mean_square_of_their_steps(
    plain: TaskConfig, changed: Changed
) -> None:
    clipped = changed(plain, train={"gradient_norms": True, "clip_norm": 0.05})
    program = Program(clipped, devices_for(clipped))
    data = training_dataset(clipped)
    state, together, norms = program.init(0), program.empty_window(), []
    for k in range(STEPS):
        batch = program.prepare(data.batch(k))
        copy = jax.tree.map(lambda x: x.copy(), state)
        _, alone = program.train_step(copy, program.empty_window(), batch)
        norms.append(metrics.summarize(jax.device_get(alone), clipped.loss)["gradient_norm/item"])
        state, together = program.train_step(state, together, batch)
    row = metrics.summarize(jax.device_get(together), clipped.loss)
    assert row["gradient_norm/item"] == pytest.approx(np.sqrt(np.mean(np.square(norms))), rel=1e-5)
    assert row["clipped"] == 1.0
    assert row["gradient_norm"] > 0.05


def test_a_norm_that_is_not_finite_is_no_small_step(plain: TaskConfig, changed: Changed) -> None:
    wild = changed(plain, train={"clip_norm": 1.0})
    program = Program(wild, devices_for(wild))
    batch = program.prepare(training_dataset(wild).batch(0))
    state = program.init(0)
    huge = np.full((50, 8), 1e30, np.float32)
    tables = program.engine.with_table(state.tables, "user", huge)
    state = type(state)(state.step, state.params, state.opt_state, tables)
    state, _ = program.train_step(state, program.empty_window(), batch)
    assert np.isnan(contents(program, state)["item"]).any()


def test_who_measures_nothing_carries_nothing(plain: TaskConfig) -> None:
    window = Program(plain, devices_for(plain)).empty_window()
    assert not [name for name in window if "gradient" in name]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_clip_norm_is_checked(value: float) -> None:
    with pytest.raises(ConfigError, match="clip_norm must be 0 or above and finite"):
        TrainConfig(clip_norm=value)
