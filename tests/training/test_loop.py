"""The loop: order of operations, exact resume, preemption, and what stops a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.errors import CheckpointError, ConfigError, DataError, DivergedError, UserError
from monolith_jax.input.write import encode_example, write_tfrecord
from monolith_jax.preemption import Preemption
from monolith_jax.task import TaskConfig
from monolith_jax.training import Program, devices_for, evaluate_checkpoint, train
from monolith_jax.training import loop as loop_module
from monolith_jax.training.writers import TIMES, read_rows

Changed = Callable[..., TaskConfig]

USERS = 50  # rows of the table


class StopAfter(Preemption):
    """Asks to stop at the n-th time it is asked whether to."""

    def __init__(self, polls: int) -> None:
        super().__init__()
        self.polls = polls

    @property
    def requested(self) -> bool:
        self.polls -= 1
        return self.polls < 0


def run(task: TaskConfig, directory: Path, stop_after: int | None = None) -> dict[str, float]:
    preemption = Preemption() if stop_after is None else StopAfter(stop_after)
    return train(task, str(directory), preemption=preemption, show=False)


def final_state(task: TaskConfig, directory: Path) -> dict[str, Any]:
    checkpoints = Checkpoints(str(directory / "checkpoints"), read_only=True)
    program = Program(task, devices_for(task))
    state, _ = checkpoints.restore(checkpoints.steps()[-1], program.abstract_checkpoint())
    return state


def rows_without_times(directory: Path) -> list[dict[str, Any]]:
    rows = read_rows(directory / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def assert_same_run(task: TaskConfig, one: Path, other: Path) -> None:
    left, right = final_state(task, one), final_state(task, other)
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert rows_without_times(one) == rows_without_times(other)


@pytest.fixture(scope="module")
def uninterrupted(
    task: TaskConfig, changed: Changed, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run from the start to the end, its batches prepared by one worker."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    run(changed(task, input={"workers": 1}), directory)
    return directory


def test_trains_evaluates_and_leaves_everything_behind(uninterrupted: Path) -> None:
    rows = read_rows(uninterrupted / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "eval"] == [7, 14, 21]
    assert [row["step"] for row in rows if row["split"] == "train"] == [4, 8, 12, 16, 20, 21]
    assert sum(row["examples"] for row in rows if row["split"] == "train") == 3 * 200
    wanted = {"loss", "auc", "logloss", "normalized_entropy", "calibration"}
    assert all(wanted <= row.keys() for row in rows)
    config = json.loads((uninterrupted / "config.json").read_text())
    assert config["versions"]["jax"] == jax.__version__
    assert config["devices"]
    assert list(uninterrupted.glob("events.*"))
    assert "<svg" in (uninterrupted / "report.html").read_text()
    assert [p.name for p in sorted((uninterrupted / "checkpoints").iterdir())] == ["15", "20", "21"]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_step_that_is_compiled_before_it_runs_is_compiled_once(
    task: TaskConfig, changed: Changed, tmp_path: Path, devices: int
) -> None:
    compiled: list[str] = []

    def listen(event: str, _: float, **known: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(known.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run(changed(task, train={"devices": devices}), tmp_path / "run", stop_after=1)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert sum("_train_step" in name for name in compiled) == 1


def test_training_learns(task: TaskConfig, changed: Changed, tmp_path: Path) -> None:
    rows = read_rows(tmp_path / "metrics.jsonl")
    run(changed(task, train={"epochs": 15}), tmp_path)
    rows = [r for r in read_rows(tmp_path / "metrics.jsonl") if r["split"] == "train"]
    assert rows[0]["normalized_entropy"] > 0.95
    assert rows[-1]["normalized_entropy"] < 0.9


@pytest.mark.parametrize("polls", [0, 1, 3, 8, 12])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(
    task: TaskConfig, uninterrupted: Path, tmp_path: Path, polls: int
) -> None:
    run(task, tmp_path, stop_after=polls)
    first = rows_without_times(tmp_path)
    run(task, tmp_path)
    assert rows_without_times(tmp_path)[: len(first)] == first
    assert_same_run(task, uninterrupted, tmp_path)


@pytest.mark.parametrize("stop_after", [None, 9])
def test_the_workers_change_no_bit(
    task: TaskConfig,
    changed: Changed,
    uninterrupted: Path,
    tmp_path: Path,
    stop_after: int | None,
) -> None:
    """Four of them against the one of the uninterrupted run, and one after four."""
    run(changed(task, input={"workers": 4}), tmp_path, stop_after=stop_after)
    if stop_after is not None:
        run(changed(task, input={"workers": 1}), tmp_path)
    assert_same_run(task, uninterrupted, tmp_path)


@pytest.mark.parametrize("workers", [1, 4])
def test_bad_data_stop_the_run_at_their_step(
    task: TaskConfig,
    changed: Changed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    good = encode_example({"user": 1, "item": 2, "tags": [3], "label": 1.0, "hour": 0.5})
    bad = encode_example({"user": USERS, "item": 2, "tags": [3], "label": 1.0, "hour": 0.5})
    folder = tmp_path / "data" / "20240101"
    folder.mkdir(parents=True)
    write_tfrecord(folder / "part-0", [*[good] * 130, bad, *[good] * 129])  # in batch 4 of 32
    root = {"root": str(tmp_path / "data"), "end_date": "20240101", "shuffle_window": 0}
    no_evaluation = {"eval_start_date": "", "eval_end_date": "", "workers": workers}
    steps: list[int] = []
    monkeypatch.setattr(loop_module.Recorder, "step", lambda _, step: steps.append(step))
    with pytest.raises(DataError, match=f"id {USERS} is outside table 'user'"):
        run(changed(task, input=root | no_evaluation), tmp_path / "run")
    assert steps == [1, 2, 3, 4]


def test_going_on_after_the_end_changes_nothing(
    task: TaskConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    run(task, tmp_path)
    again = run(task, tmp_path)
    assert again["step"] == 21
    assert_same_run(task, uninterrupted, tmp_path)


def test_more_epochs_go_on_from_the_end(task: TaskConfig, changed: Changed, tmp_path: Path) -> None:
    longer = changed(task, train={"epochs": 4})
    run(task, tmp_path / "twice")
    run(longer, tmp_path / "twice")
    run(longer, tmp_path / "once")
    left, right = final_state(longer, tmp_path / "twice"), final_state(longer, tmp_path / "once")
    jax.tree.map(np.testing.assert_array_equal, left["state"], right["state"])


def test_save_comes_before_the_next_batch_is_drawn(
    task: TaskConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []
    real_prefetch, real_save = loop_module.prefetch, Checkpoints.save

    class Recorded:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.inner = real_prefetch(*args, **kwargs)

        def __enter__(self) -> "Recorded":
            self.inner.__enter__()
            return self

        def __exit__(self, *args: Any) -> None:
            self.inner.__exit__(*args)

        def __next__(self) -> Any:
            k, batch = next(self.inner)
            events.append(("draw", k))
            return k, batch

    def save(self: Checkpoints, step: int, state: Any, extra: dict[str, Any]) -> None:
        events.append(("save", step))
        assert int(state["state"].step) == step
        real_save(self, step, state, extra)

    monkeypatch.setattr(loop_module, "prefetch", Recorded)
    monkeypatch.setattr(Checkpoints, "save", save)
    run(task, tmp_path)
    for step in (5, 10, 15):
        at = events.index(("save", step))
        assert events[at - 1] == ("draw", step - 1)
        assert events[at + 1] == ("draw", step)


def test_a_preempted_evaluation_is_done_again(
    task: TaskConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    # Polled once a step and once an evaluation batch: the 9th poll is within the first evaluation.
    run(task, tmp_path, stop_after=8)
    assert [row["split"] for row in read_rows(tmp_path / "metrics.jsonl")] == ["train"]
    run(task, tmp_path)
    assert_same_run(task, uninterrupted, tmp_path)


def test_evaluate_checkpoint_gives_the_row_of_the_run(
    task: TaskConfig, uninterrupted: Path
) -> None:
    got = evaluate_checkpoint(task, str(uninterrupted), "model")
    row = next(r for r in rows_without_times(uninterrupted)[::-1] if r["split"] == "eval")
    assert got == {k: v for k, v in row.items() if k != "split"}
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 11; there are: \[15, 20, 21"):
        evaluate_checkpoint(task, str(uninterrupted), "model", step=11)


def test_another_config_is_refused_by_its_fields(
    task: TaskConfig, changed: Changed, uninterrupted: Path
) -> None:
    other = changed(task, input={"batch_size": 16}, embedding_l2=0.5)
    with pytest.raises(CheckpointError, match=r"embedding_l2: 0.0 -> 0.5; input.batch_size: 32 ->"):
        run(other, uninterrupted)


def test_another_model_is_refused(task: TaskConfig, uninterrupted: Path) -> None:
    with pytest.raises(CheckpointError, match="is the model dir of model, not of other"):
        train(task, str(uninterrupted), name="other", preemption=Preemption(), show=False)


def test_changed_data_are_refused(task: TaskConfig, changed: Changed, tmp_path: Path) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(task.input.root, data)
    moved = changed(task, input={"root": str(data)})
    run(moved, tmp_path / "run", stop_after=3)
    part = data / "20240101" / "00" / "part-00000"
    shutil.copy(part, part.with_name("part-00001"))
    with pytest.raises(CheckpointError, match="was trained on other data"):
        run(moved, tmp_path / "run")


def test_divergence_stops_and_names_the_last_good_checkpoint(
    task: TaskConfig, changed: Changed, tmp_path: Path
) -> None:
    hot = changed(task, optimizer={"learning_rate": 1e30}, train={"checkpoint_every": 1})
    with pytest.raises(DivergedError, match="last good checkpoint: ") as error:
        run(hot, tmp_path)
    assert str(error.value).count("last good checkpoint") == 1
    for path in (tmp_path / "checkpoints").iterdir():
        checkpoints = Checkpoints(str(tmp_path / "checkpoints"), read_only=True)
        program = Program(hot, devices_for(hot))
        state, _ = checkpoints.restore(int(path.name), program.abstract_checkpoint())
        finite = jax.tree.map(lambda x: bool(np.all(np.isfinite(x))), state)
        assert all(jax.tree.leaves(finite))


def test_a_batch_that_does_not_divide_over_the_devices_names_the_valid_ones(
    task: TaskConfig, changed: Changed, tmp_path: Path
) -> None:
    odd = changed(task, input={"batch_size": 30}, train={"devices": 8})
    with pytest.raises(ConfigError, match="multiples of 8, the nearest 24 and 32"):
        run(odd, tmp_path)


def test_nothing_is_written_before_the_config_is_sound(
    task: TaskConfig, changed: Changed, tmp_path: Path
) -> None:
    odd = changed(task, input={"start_date": "20250101", "end_date": "20240101"})
    with pytest.raises(UserError, match="2025-01-01 is after"):
        run(odd, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("devices", [2, 8])
def test_the_number_of_devices_changes_rounding_only(
    task: TaskConfig, changed: Changed, uninterrupted: Path, tmp_path: Path, devices: int
) -> None:
    run(changed(task, train={"devices": devices}), tmp_path)
    left, right = final_state(task, uninterrupted), final_state(task, tmp_path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
        left["state"],
        right["state"],
    )


def test_a_checkpoint_goes_on_with_another_number_of_devices(
    task: TaskConfig, changed: Changed, uninterrupted: Path, tmp_path: Path
) -> None:
    run(changed(task, train={"devices": 8}), tmp_path, stop_after=9)
    run(changed(task, train={"devices": 2}), tmp_path)
    got, want = read_rows(tmp_path / "metrics.jsonl"), read_rows(uninterrupted / "metrics.jsonl")
    assert got[-1]["logloss"] == pytest.approx(want[-1]["logloss"], abs=1e-4)
