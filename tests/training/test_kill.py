"""Real processes, really killed: the same command again ends with the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.training.writers import TIMES, read_rows

STEPS = 12 * 7
LIMIT = 120.0


class Killable:
    """`monolith-jax train` of the small model in a process of its own."""

    def __init__(self, folder: Path, model_dir: Path, *fields: str) -> None:
        environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(folder)}
        self.model_dir = model_dir
        command = [sys.executable, "-m", "monolith_jax.cli", "train", "kill_model.Small"]
        command += ["--module", "kill_model", "--model-dir", str(model_dir), *fields]
        self.process = subprocess.Popen(
            command,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> str:
        """Returns what it printed, once it has ended."""
        try:
            return self.process.communicate(timeout=LIMIT)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"still running after {LIMIT} s: {self.process.communicate()[1]}")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Polls until the condition holds or the process has ended."""
        deadline = time.monotonic() + LIMIT
        while not condition() and self.process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def steps_logged(self) -> int:
        rows = read_rows(self.model_dir / "metrics.jsonl")
        return max((row["step"] for row in rows), default=0)

    def saving(self) -> bool:
        """Whether a checkpoint is being written at this moment."""
        import orbax.checkpoint as ocp

        folder = self.model_dir / "checkpoints"
        if not folder.exists():
            return False
        for path in folder.iterdir():
            try:
                if not path.name.isdigit() or not ocp.utils.is_checkpoint_finalized(path):
                    return True
            except (OSError, ValueError):
                continue  # renamed or deleted under our eyes
        return False


@pytest.fixture(scope="module")
def folder(
    task: Any, model_file: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Long enough steps and large enough tables that a kill can hit anything, saves included."""
    folder = tmp_path_factory.mktemp("model")
    train = {"epochs": 12, "checkpoint_every": 4, "log_every": 3}
    model_file(folder, "kill_model", task.input.root, users=200_000, **train)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_dir = tmp_path_factory.mktemp("uninterrupted")
    run = Killable(folder, model_dir)
    printed = run.wait()
    assert run.process.returncode == 0, printed
    return model_dir


def arrays(model_dir: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields every array of the last checkpoint, however the state is built."""
    import orbax.checkpoint as ocp

    step = Checkpoints(str(model_dir / "checkpoints"), read_only=True).steps()[-1]
    path = model_dir / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata.tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
        tree = checkpointer.restore(path, restore_args=arguments)
    for name, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(name), leaf


def assert_same_bits(one: Path, other: Path) -> None:
    left, right = dict(arrays(one)), dict(arrays(other))
    assert left.keys() == right.keys()
    assert len(left) > 10
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=name)
    rows = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(d / "metrics.jsonl")]
        for d in (one, other)
    ]
    assert rows[0] == rows[1]


def test_killed_at_random_points_and_during_a_save(
    folder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    points = sorted(random.Random(0).sample(range(1, STEPS - 10), 5))
    for point in points:
        run = Killable(folder, tmp_path)
        run.wait_until(lambda run=run, point=point: run.steps_logged() >= point)
        run.process.kill()
        run.wait()
        assert run.process.returncode == -signal.SIGKILL
    run = Killable(folder, tmp_path)
    run.wait_until(run.saving)
    run.process.kill()
    run.wait()
    assert run.process.returncode == -signal.SIGKILL
    last = Killable(folder, tmp_path)
    printed = last.wait()
    assert last.process.returncode == 0, printed
    assert "going on from step" in printed
    assert_same_bits(uninterrupted, tmp_path)


def test_sigterm_during_the_first_compile_saves_and_exits_0(
    folder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run = Killable(folder, tmp_path)
    run.wait_until(lambda: (tmp_path / "metrics.jsonl").exists())
    run.process.send_signal(signal.SIGTERM)
    printed = run.wait()
    assert run.process.returncode == 0, printed
    assert "the same command goes on" in printed
    assert Checkpoints(str(tmp_path / "checkpoints"), read_only=True).steps()[-1] < 4
    last = Killable(folder, tmp_path)
    assert last.wait()
    assert last.process.returncode == 0
    assert_same_bits(uninterrupted, tmp_path)


def test_sigterm_while_training_saves_and_exits_0(folder: Path, tmp_path: Path) -> None:
    run = Killable(folder, tmp_path)
    run.wait_until(lambda: run.steps_logged() >= 6)
    run.process.send_signal(signal.SIGTERM)
    printed = run.wait()
    assert run.process.returncode == 0, printed
    step = Checkpoints(str(tmp_path / "checkpoints"), read_only=True).steps()[-1]
    assert f"stopped at step {step}" in printed


def test_sigterm_among_evaluations_leaves_none_out(folder: Path, tmp_path: Path) -> None:
    # Evaluating after every step, the process is hit within an evaluation more often than not.
    fields = ("--train.eval_every", "1", "--train.epochs", "3")
    for stop_at in (2, 5, 9):
        run = Killable(folder, tmp_path, *fields)
        run.wait_until(lambda run=run, stop_at=stop_at: run.steps_logged() >= stop_at)
        run.process.send_signal(signal.SIGTERM)
        printed = run.wait()
        assert run.process.returncode == 0, printed
        assert "the same command goes on" in printed
    last = Killable(folder, tmp_path, *fields)
    printed = last.wait()
    assert last.process.returncode == 0, printed
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "eval"] == list(range(1, 22))


def test_a_full_disk_names_the_last_good_checkpoint(folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    try:
        # A checkpoint of 13 MB a step, and none given back: the third or fourth does not fit.
        run = Killable(folder, disk / "run", "--train.keep_checkpoints", "100")
        printed = run.wait()
        assert run.process.returncode == 2, printed
        message = printed.strip().splitlines()[-1]
        assert message.startswith("monolith-jax: "), printed
        assert "No space left on device" in message
        last = Checkpoints(str(disk / "run" / "checkpoints"), read_only=True).steps()[-1]
        assert f"the last good checkpoint: {disk}/run/checkpoints/{last}" in message
        assert "Traceback" not in printed
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
