"""Model dirs in a bucket: faults, kills and signals end with the bits of an uninterrupted run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax import storage
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.errors import CheckpointError, UserError
from monolith_jax.preemption import Preemption
from monolith_jax.task import TaskConfig
from monolith_jax.training import Program, devices_for, evaluate_checkpoint, train
from monolith_jax.training.writers import TIMES, read_rows

LIMIT = 120.0


@pytest.fixture
def folder(task: TaskConfig, model_file: Callable[..., None], tmp_path: Path) -> Path:
    """Holds the model that other processes train."""
    model_file(tmp_path, "gcs_model", task.input.root, checkpoint_every=2, log_every=1)
    return tmp_path


@pytest.fixture
def often(task: TaskConfig, changed: Callable[..., TaskConfig]) -> TaskConfig:
    """The small task with a checkpoint every other step and a row for every one."""
    return changed(task, train={"checkpoint_every": 2, "log_every": 1})


def run(task: TaskConfig, model_dir: str) -> dict[str, float]:
    return train(task, model_dir, name="gcs_model.Small", preemption=Preemption(), show=False)


def everything(task: TaskConfig, model_dir: str) -> tuple[Any, list[dict[str, Any]]]:
    """Returns the last checkpoint's arrays, and the rows without what a clock says."""
    checkpoints = Checkpoints(f"{model_dir}/checkpoints", read_only=True)
    program = Program(task, devices_for(task))
    state, _ = checkpoints.restore(checkpoints.steps()[-1], program.abstract_checkpoint())
    checkpoints.close()
    rows = read_rows(f"{model_dir}/metrics.jsonl")
    return state, [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def assert_same(task: TaskConfig, one: str, other: str) -> None:
    left, right = everything(task, one), everything(task, other)
    jax.tree.map(np.testing.assert_array_equal, left[0], right[0])
    assert left[1] == right[1]
    assert [row["step"] for row in left[1] if row["split"] == "train"] == list(range(1, 22))


def upload_data(task: TaskConfig, changed: Callable[..., TaskConfig], to: str) -> TaskConfig:
    root = task.input.root
    for path in storage.list_files(root):
        storage.upload(path, f"{to}/{os.path.relpath(path, root)}")
    return changed(task, input={"root": to})


@pytest.mark.usefixtures("quick_retries")
def test_everything_lands_in_the_bucket(
    often: TaskConfig, changed: Callable[..., TaskConfig], gcs: Any, tmp_path: Path
) -> None:
    there = upload_data(often, changed, gcs / "data")
    last = run(there, gcs / "run")
    run(often, str(tmp_path))
    assert_same(often, gcs / "run", str(tmp_path))
    names = [p.removeprefix(gcs / "run/") for p in storage.list_files(gcs / "run", recursive=False)]
    kinds = [name.partition(".")[0] or name for name in names]
    assert kinds == [".lock", "config", "events", "metrics", "report"]
    assert b"<svg" in storage.read_bytes(gcs / "run/report.html")
    assert storage.list_folders(gcs / "run/checkpoints") == ["18", "20", "21"]
    assert evaluate_checkpoint(there, gcs / "run", "gcs_model.Small")["auc"] == last["auc"]
    with pytest.raises(CheckpointError, match="embedding_l2"):
        run(changed(there, embedding_l2=0.5), gcs / "run")


def test_200_faults_lose_nothing(
    often: TaskConfig, changed: Callable[..., TaskConfig], faults: Any, tmp_path: Path
) -> None:
    there = upload_data(often, changed, faults.bucket / "data")
    end = faults.break_often()
    folder = faults.bucket / "run"
    for until in (1, 2, 3):  # each goes on where the one before ended
        run(changed(there, train={"epochs": until}), folder)
    while len(faults.done) < 200:
        evaluate_checkpoint(there, folder, "gcs_model.Small")
    end()
    for until in (1, 2, 3):
        run(changed(often, train={"epochs": until}), str(tmp_path))
    assert len(faults.done) >= 200
    left, right = everything(often, folder), everything(often, str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, left[0], right[0])
    assert left[1] == right[1]


def test_a_bucket_that_is_not_there_or_not_ours_is_one_line(often: TaskConfig, faults: Any) -> None:
    with pytest.raises(UserError, match="there is no bucket 'none'"):
        run(often, "gs://none/run")
    for code in (401, 403):
        faults.add("status", code)
        with pytest.raises(UserError, match="GOOGLE_APPLICATION_CREDENTIALS") as error:
            run(often, faults.bucket / "run")
        assert "\n" not in str(error.value)


def start(folder: Path, model_dir: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(folder)}
    environment["TMPDIR"] = str(folder)
    command = [sys.executable, "-m", "monolith_jax.cli", "train", "gcs_model.Small"]
    command += ["--module", "gcs_model", "--model-dir", model_dir]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_and_asked_to_stop_it_goes_on_to_the_same_bits(
    often: TaskConfig, gcs: Any, folder: Path
) -> None:
    model_dir = gcs / "run"
    checkpoints = f"{model_dir}/checkpoints"

    def uploading(step: int) -> bool:
        return storage.is_dir(f"{checkpoints}/{step}")

    for step, number in ((4, signal.SIGKILL), (8, signal.SIGTERM), (14, signal.SIGKILL)):
        process = start(folder, model_dir)
        wait_until(process, lambda step=step: uploading(step))
        process.send_signal(number)
        printed = process.communicate(timeout=LIMIT)[1]
        assert process.returncode == (0 if number == signal.SIGTERM else -number), printed
    process = start(folder, model_dir)
    printed = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 0, printed
    assert "going on from step" in printed
    run(often, str(folder / "local"))
    assert_same(often, model_dir, str(folder / "local"))
    left = [path.name for path in folder.glob("monolith-jax-*")]
    assert left == []  # what the killed processes had staged is gone too


@pytest.mark.usefixtures("gcs")
def test_a_bucket_that_is_not_there_exits_2_with_one_line(folder: Path) -> None:
    process = start(folder, "gs://none/run")
    printed = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 2
    assert printed.strip().splitlines() == ["monolith-jax: gs://none: there is no bucket 'none'"], (
        printed
    )
