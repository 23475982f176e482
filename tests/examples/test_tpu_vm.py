"""The rehearsal of a pod: two processes of four devices, preempted, resumed, as one of eight."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MODEL = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import small_task
from monolith_jax.registry import RegisterSingleTaskModel
from monolith_jax.task import SingleTaskModelParams

@RegisterSingleTaskModel
class Small(SingleTaskModelParams):
    "The small model of the tests, on all devices."

    def task(self):
        task = small_task(Path({root!r}))
        return replace(task, train=replace(task.train, devices=0, epochs=4))
"""


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
    tests = str(ROOT / "tests" / "training")
    text = MODEL.format(tests=tests, root=str(folder / "data"))
    (folder / "pod_model.py").write_text(text)
    return folder


@pytest.fixture
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the command's first arguments; the processes find the model and share compiling."""
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return ["pod_model.Small", "--module", "pod_model"]


def rows(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    times = ("seconds", "examples_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]


def assert_close(task: Any, one: Path, other: Path) -> None:
    """The last checkpoints hold the same numbers, and the metrics' rows are alike."""
    from monolith_jax.checkpoint.native import Checkpoints
    from monolith_jax.training import Program, devices_for

    program = Program(task, devices_for(task))
    states = []
    for run in (one, other):
        checkpoints = Checkpoints(str(run / "checkpoints"), read_only=True)
        states.append(checkpoints.restore(checkpoints.steps()[-1], program.abstract_checkpoint()))
        checkpoints.close()
    (left, _), (right, _) = states
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), left, right)
    found, wanted = rows(one), rows(other)
    assert [(r["step"], r["split"]) for r in found] == [(r["step"], r["split"]) for r in wanted]
    for got, want in zip(found, wanted, strict=True):
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-5)
        assert got["examples"] == want["examples"]


def test_two_processes_preempted_and_resumed_equal_one(
    folder: Path, environment: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from monolith_jax.preemption import Preemption
    from monolith_jax.training import train

    key, *module = environment
    pod, alone, taken_over = tmp_path / "pod", tmp_path / "alone", tmp_path / "taken_over"
    code = rehearse.main([key, "--model-dir", str(pod), "--limit", "100", *module])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    (stopped,) = [line for line in printed.out.splitlines() if line.startswith("stopped at step")]
    step = int(stopped.split()[3].rstrip(","))
    assert f"going on from step {step}" in printed.out
    assert "done: step 28" in printed.out
    assert len(list(pod.glob("events.*"))) == 2  # of process 0 alone, once a run
    assert (pod / "report.html").exists()

    task = small.small_task(folder / "data")
    task = replace(task, train=replace(task.train, devices=8, epochs=4))
    train(task, str(alone), name="pod_model.Small", preemption=Preemption(), show=False)
    assert_close(task, pod, alone)

    # What two processes saved, one goes on with.
    shutil.copytree(pod, taken_over)
    shutil.rmtree(taken_over / "checkpoints" / "28")
    train(task, str(taken_over), name="pod_model.Small", preemption=Preemption(), show=False)
    assert_close(task, taken_over, alone)


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
    from monolith_jax import distributed
    from monolith_jax.errors import UserError

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "from_primary", lambda value: value)
    seen = [["host-a", True], ["host-b", False]]
    monkeypatch.setattr(distributed, "from_all", lambda value: seen)
    with pytest.raises(UserError, match=r"is local: process 1 \(host-b\) cannot see what process"):
        distributed.check_shared(str(tmp_path))
    assert not list(tmp_path.iterdir())
