"""The rehearsal of a pod: two processes of four devices, preempted, resumed, as one of eight."""

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax import distributed, storage
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.distributed import _shared
from monolith_jax.errors import UserError
from monolith_jax.preemption import Preemption
from monolith_jax.task import TaskConfig
from monolith_jax.training import Program, devices_for, train
from monolith_jax.training.writers import TIMES, read_rows

ROOT = Path(__file__).parents[2]


def load(name: str, file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rehearse = load("rehearse", ROOT / "examples" / "tpu_vm" / "rehearse.py")
small = load("training_conftest", ROOT / "tests" / "training" / "conftest.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pod")
    small.write_days(folder / "data")
    small.write_model(folder, "pod_model", folder / "data", devices=0, epochs=6, log_every=1)
    return folder


@pytest.fixture
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the command's first arguments; the processes find the model and share compiling."""
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return ["pod_model.Small", "--module", "pod_model"]


@pytest.fixture(scope="module")
def task(folder: Path) -> TaskConfig:
    """The model, as one process of eight devices trains it."""
    task = small.small_task(folder / "data")
    return replace(task, train=replace(task.train, devices=8, epochs=6, log_every=1))


@pytest.fixture(scope="module")
def alone(task: TaskConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where one process has trained it, uninterrupted."""
    run = str(tmp_path_factory.mktemp("alone"))
    go_on(task, run)
    return run


def go_on(task: TaskConfig, run: str) -> None:
    train(task, run, name="pod_model.Small", preemption=Preemption(), show=False)


def rows(run: str) -> list[dict[str, float]]:
    found = read_rows(storage.join(run, "metrics.jsonl"))
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


def assert_close(task: TaskConfig, one: str, other: str) -> None:
    """The last checkpoints hold the same numbers, and the metrics' rows are alike."""
    program = Program(task, devices_for(task))
    states = []
    for run in (one, other):
        checkpoints = Checkpoints(storage.join(run, "checkpoints"), read_only=True)
        states.append(checkpoints.restore(checkpoints.steps()[-1], program.abstract_checkpoint()))
        checkpoints.close()
    (left, _), (right, _) = states
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), left, right)
    found, wanted = rows(one), rows(other)
    assert [(r["step"], r["split"]) for r in found] == [(r["step"], r["split"]) for r in wanted]
    for got, want in zip(found, wanted, strict=True):
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-5)
        assert got["examples"] == want["examples"]


def rehearsed(arguments: list[str], run: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Rehearses a pod; returns what it printed, after the usual looks at it."""
    key, *module = arguments
    code = rehearse.main([key, "--model-dir", run, "--limit", "200", *module])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    (stopped,) = [line for line in printed.out.splitlines() if line.startswith("stopped at step")]
    step = int(stopped.split()[3].rstrip(","))
    assert f"going on from step {step}" in printed.out
    assert "done: step 42" in printed.out
    assert f"all is in {run}" in printed.out
    return printed.out


def test_two_processes_preempted_and_resumed_equal_one(
    task: TaskConfig,
    alone: str,
    environment: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pod, taken_over = tmp_path / "pod", tmp_path / "taken_over"
    rehearsed([*environment, "--input.workers", "3"], str(pod), capsys)
    assert len(list(pod.glob("events.*"))) == 2  # of process 0 alone, once a run
    assert (pod / "report.html").exists()
    assert_close(task, str(pod), alone)

    # What two processes saved, one goes on with.
    shutil.copytree(pod, taken_over)
    shutil.rmtree(taken_over / "checkpoints" / "42")
    go_on(task, str(taken_over))
    assert_close(task, str(taken_over), alone)


def test_in_a_bucket_a_pod_goes_on_from_one_process_and_one_process_from_the_pod(
    task: TaskConfig,
    alone: str,
    environment: list[str],
    gcs: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = gcs / "run"
    go_on(replace(task, train=replace(task.train, epochs=1)), run)
    kept = gcs / "compiled"
    printed = rehearsed([*environment, "--compile-cache", kept], run, capsys)
    assert "going on from step 7:" in printed
    assert printed.count(f" compiled programs taken from {kept}/jax-") == 2
    assert_close(task, run, alone)

    storage.delete(f"{run}/checkpoints/42", recursive=True)
    go_on(task, run)
    assert_close(task, run, alone)
    assert storage.exists(f"{run}/report.html")


def test_a_host_started_alone_says_who_is_missing(environment: list[str], tmp_path: Path) -> None:
    key, *module = environment
    arguments = [key, "--model-dir", str(tmp_path), *module, "--cluster-timeout", "1"]
    (first,) = rehearse.start(arguments, 2, 1, only=[0])
    (second,) = rehearse.start(arguments, 2, 1, only=[1])
    alone, lost = rehearse.finish([first, second], 60)
    assert (first.returncode, second.returncode) == (2, 2)
    assert "monolith-jax: waited 1 s for 2 processes; missing: process 1." in alone
    assert "cannot reach the coordinator, process 0, at 127.0.0.1:" in lost
    assert not list(tmp_path.iterdir())


def test_a_model_dir_that_is_local_on_a_pod(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(_shared, "from_primary", lambda value: value)
    seen = [["host-a", True], ["host-b", False]]
    monkeypatch.setattr(_shared, "from_all", lambda value: seen)
    with pytest.raises(UserError, match=r"is local: process 1 \(host-b\) cannot see what process"):
        distributed.check_shared(str(tmp_path))
    assert not list(tmp_path.iterdir())
