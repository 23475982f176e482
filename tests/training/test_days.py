"""A run whose days are done goes on with later days, exactly, and with nothing else."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax import config
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.errors import CheckpointError
from monolith_jax.preemption import Preemption
from monolith_jax.task import TaskConfig
from monolith_jax.training import train
from monolith_jax.training.data import training_dataset
from monolith_jax.training.days import first_step
from monolith_jax.training.program import Program, devices_for
from monolith_jax.training.restore import restore
from monolith_jax.training.writers import TIMES, read_rows

STEPS = 4  # of a day, 100 examples in batches of 32


class StopAfter(Preemption):
    """Asks to stop at the poll after `polls` others."""

    def __init__(self, polls: int) -> None:
        super().__init__()
        self.polls = polls

    @property
    def requested(self) -> bool:
        self.polls -= 1
        return self.polls < 0


def on(task: TaskConfig, start: str, end: str = "", epochs: int = 1) -> TaskConfig:
    """The task on other days, on one device and without evaluation."""
    days = {"start_date": start, "end_date": end or start}
    none = {"eval_start_date": "", "eval_end_date": ""}
    return dataclasses.replace(
        task,
        input=dataclasses.replace(task.input, **days, **none),
        train=dataclasses.replace(task.train, epochs=epochs, devices=1),
    )


def run(task: TaskConfig, directory: Path, polls: int | None = None) -> None:
    preemption = Preemption() if polls is None else StopAfter(polls)
    train(task, str(directory), preemption=preemption, show=False)


def newest(program: Program, directory: Path) -> tuple[int, Any, dict[str, Any]]:
    checkpoints = Checkpoints(str(directory / "checkpoints"), read_only=True)
    step = checkpoints.steps()[-1]
    restored, found = restore(checkpoints, step, program)
    return step, restored["state"], found


def rows(directory: Path) -> list[dict[str, Any]]:
    found = read_rows(directory / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


@pytest.fixture(scope="module")
def done(task: TaskConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done with the first day."""
    directory = tmp_path_factory.mktemp("done")
    run(on(task, "20240101"), directory)
    return directory


def test_later_days_go_on_with_their_own_batches(
    task: TaskConfig, done: Path, tmp_path: Path
) -> None:
    second = on(task, "2024-01-02", "20240103", epochs=2)
    program, data = Program(second, devices_for(second)), training_dataset(second)
    step, saved, _ = newest(program, done)
    assert step == STEPS
    state, window = program.from_saved(saved), program.empty_window()
    for k in range(2 * data.steps_per_epoch):
        state, window = program.train_step(state, window, program.prepare(data.batch(k)))

    directory = tmp_path / "run"
    shutil.copytree(done, directory)
    run(second, directory, polls=9)
    run(second, directory)
    step, saved, found = newest(program, directory)
    assert step == found["last_step"] == STEPS + 2 * 7
    assert found["first_step"] == STEPS
    jax.tree.map(np.testing.assert_array_equal, program.from_saved(saved), state)
    assert sum(row["examples"] for row in rows(directory)) == 100 + 2 * 200
    stored = json.loads((directory / "config.json").read_text())["config"]["input"]
    assert (stored["start_date"], stored["end_date"]) == ("2024-01-02", "20240103")
    with pytest.raises(CheckpointError, match=r"on the days 2024-01-02 to 20240103, now 20240101"):
        run(on(task, "20240101"), directory)


@pytest.fixture
def begin(task: TaskConfig) -> Callable[..., int]:
    """Goes on from a checkpoint of the second day, at a step, with the days from..to."""
    before = on(task, "20240102")
    stored = {
        "data": training_dataset(before).fingerprint(),
        "config": config.to_dict(before),
        "first_step": 3,
        "last_step": 3 + STEPS,
    }

    def call(step: int, start: str, end: str = "", **changes: Any) -> int:
        now = on(task, start, end)
        return first_step("DIR/7", step, stored | changes, now.input, training_dataset(now))

    return call


def test_the_same_days_keep_their_first_step(begin: Callable[..., int]) -> None:
    assert begin(5, "20240102") == begin(7, "20240102") == 3
    assert begin(5, "20240103", data=None) == 3  # imported: it has seen no data
    assert begin(7, "20240103") == 7


@pytest.mark.parametrize(
    ("start", "end"), [("20240101", ""), ("20240101", "20240103"), ("20240102", "20240103")]
)
def test_days_that_are_not_later_are_refused(
    begin: Callable[..., int], start: str, end: str
) -> None:
    with pytest.raises(CheckpointError, match=r"DIR/7 .* --input\.start_date after 20240102"):
        begin(7, start, end)


def test_later_days_wait_for_the_days_before(begin: Callable[..., int]) -> None:
    with pytest.raises(CheckpointError, match="20240102 to 20240102 are not done, at step 5 of 7"):
        begin(5, "20240103")
    with pytest.raises(CheckpointError, match="are not done, at step 7;"):
        begin(7, "20240103", last_step=None)
