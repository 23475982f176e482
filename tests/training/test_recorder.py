"""The recorder: whose time a row's speed counts."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import pytest

from monolith_jax.task import TaskConfig
from monolith_jax.training import RunDir, metrics, recorder
from monolith_jax.training.writers import read_rows


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that only moves when told to."""
    now = [100.0]
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def window(examples: float) -> metrics.Window:
    empty = metrics.empty_window("logloss")
    return empty | {"weight": jnp.float32(examples), "label": jnp.float32(examples / 2)}


def test_an_evaluation_is_left_out_of_the_speed_of_the_steps_around_it(
    task: TaskConfig, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    run_dir = RunDir(str(tmp_path), "model", task)
    run_dir.open()
    record = recorder.Recorder(run_dir, step=0, total=10, show=False)
    clock(2.0)
    clock(7.0)  # the evaluation
    record.evaluation(3, {"auc": 0.5, "examples": 70.0}, 7.0)
    clock(3.0)
    record.window(5, window(100.0))
    record.flush()
    record.close()
    evaluation, training = read_rows(run_dir.metrics)
    assert (evaluation["seconds"], evaluation["examples_per_second"]) == (7.0, 10.0)
    assert (training["seconds"], training["examples_per_second"]) == (5.0, 20.0)


def test_a_window_is_read_when_it_is_flushed_and_not_before(
    task: TaskConfig, tmp_path: Path
) -> None:
    run_dir = RunDir(str(tmp_path), "model", task)
    run_dir.open()
    record = recorder.Recorder(run_dir, step=0, total=10, show=False)
    record.window(5, window(100.0))
    assert read_rows(run_dir.metrics) == []
    record.flush()
    record.flush()
    assert [row["step"] for row in read_rows(run_dir.metrics)] == [5]
    record.close()
