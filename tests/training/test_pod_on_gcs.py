"""Two real processes with a model dir in a bucket: faults, kills, and TensorFlow or none of it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monolith_jax import storage
from monolith_jax.checkpoint._bucket import bundle_of
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.checkpoint.tf import open_bundle
from monolith_jax.task import TaskConfig
from monolith_jax.training import evaluate_checkpoint
from monolith_jax.training.writers import TIMES, read_rows

LIMIT = 240.0
NO_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None
"""
TRAIN = {"devices": 0, "epochs": 2, "checkpoint_every": 2, "log_every": 1}


class Pod:
    """`monolith-jax train` in two processes of two devices."""

    def __init__(self, folder: Path, root: str, model_dir: str, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        environment = {
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "PYTHONPATH": str(folder),
            "TMPDIR": str(folder),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **environment,
        }
        command = [sys.executable, "-m", "monolith_jax.cli", "train", "pod_model.Small"]
        command += ["--module", "pod_model", "--model-dir", model_dir, "--input.root", root]
        command += ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process-id"]
        self.processes = [
            subprocess.Popen([*command, i], env=environment, stderr=subprocess.PIPE, text=True)
            for i in ("0", "1")
        ]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Polls until the condition holds or a process has ended."""
        deadline = time.monotonic() + LIMIT
        while all(p.poll() is None for p in self.processes) and not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def kill(self, first: int) -> None:
        """Kills one process and then the other, which would notice within two minutes."""
        for i in (first, 1 - first):
            self.processes[i].kill()
        for process in self.processes:
            process.communicate(timeout=LIMIT)

    def end(self) -> str:
        """Waits for a good end; returns what process 0 printed."""
        printed = [p.communicate(timeout=LIMIT)[1] for p in self.processes]
        assert [p.returncode for p in self.processes] == [0, 0], "\n".join(printed)
        return printed[0]


@pytest.fixture(scope="module")
def folder(
    task: TaskConfig, model_file: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("pod")
    model_file(folder, "pod_model", task.input.root, impatient=True, **TRAIN)
    (folder / "without").mkdir()
    (folder / "without" / "sitecustomize.py").write_text(NO_TENSORFLOW)
    return folder


def everything(model_dir: str) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Returns the last checkpoint's arrays, and the rows without what a clock says."""
    checkpoints = f"{model_dir}/checkpoints"
    step = Checkpoints(checkpoints, read_only=True).steps()[-1]
    prefix = bundle_of(f"{checkpoints}/{step}")
    assert prefix is not None
    with open_bundle(prefix) as bundle:
        assert bundle.shards == 2
        arrays = bundle.read_many()
    rows = read_rows(f"{model_dir}/metrics.jsonl")
    return arrays, [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def in_bucket(emulator: str, path: str) -> list[str]:
    """Returns the names below a path, asking the emulator beside the proxy."""
    bucket, name = storage.split_gs(path)
    query = urllib.parse.urlencode({"prefix": f"{name}/"})
    with urllib.request.urlopen(f"{emulator}/storage/v1/b/{bucket}/o?{query}") as answer:
        return [item["name"] for item in json.load(answer).get("items", [])]


def test_two_processes_killed_among_200_faults_go_on_to_the_same_bits_as_without_tensorflow(
    task: TaskConfig,
    changed: Callable[..., TaskConfig],
    folder: Path,
    faults: Any,
    gcs_emulator: str,
) -> None:
    root, model_dir, quiet = (str(faults.bucket / name) for name in ("data", "run", "quiet"))
    for path in storage.list_files(task.input.root):
        storage.upload(path, f"{root}/{os.path.relpath(path, task.input.root)}")

    without = os.pathsep.join(map(str, (folder / "without", folder)))
    Pod(
        *(folder, task.input.root, quiet), PYTHONPATH=without, STORAGE_EMULATOR_HOST=gcs_emulator
    ).end()

    end = faults.break_often()
    for step, first in ((4, 1), (8, 0)):
        pod = Pod(folder, root, model_dir)
        pod.wait_until(lambda s=step: in_bucket(gcs_emulator, f"{model_dir}/checkpoints/{s}"))
        pod.kill(first)
    assert "going on from step" in Pod(folder, root, model_dir).end()
    there = changed(task, input={"root": root}, train=TRAIN)
    last = evaluate_checkpoint(there, model_dir, "pod_model.Small")  # one process of 8 devices
    while len(faults.done) < 200:
        evaluate_checkpoint(there, model_dir, "pod_model.Small")
    end()

    assert len(faults.done) >= 200
    (arrays, rows), (wanted, wanted_rows) = everything(model_dir), everything(quiet)
    assert arrays.keys() == wanted.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)
    assert rows == wanted_rows
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 15))
    assert rows[-1]["auc"] == pytest.approx(last["auc"], rel=1e-6)
    assert [path.name for path in folder.glob("monolith-jax-*")] == []  # of killed ones, too
