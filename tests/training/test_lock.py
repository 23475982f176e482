"""Two trainers in one model dir: the second is told who is there; a killed one leaves no lock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monolith_jax.errors import CheckpointError
from monolith_jax.training.lock import held

HOLD = """
import sys, time
from monolith_jax.training.lock import held
with held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_is_there(tmp_path: Path) -> None:
    with (
        held(str(tmp_path)),
        pytest.raises(CheckpointError, match=f"in use by process {os.getpid()} on "),
        held(str(tmp_path)),
    ):
        pass


def test_it_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with held(str(tmp_path)):
            assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CheckpointError, match="file/run cannot be written: Not a directory"),
        held(str(tmp_path / "file" / "run")),
    ):
        pass


def test_a_killed_process_leaves_none(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(CheckpointError, match=f"process {process.pid} on "),
            held(str(tmp_path)),
        ):
            pass
        process.kill()
        process.wait()
    with held(str(tmp_path)):
        pass


def test_a_bucket_is_not_locked() -> None:
    entered = 0
    with held("gs://bucket/run"):
        entered += 1
        with held("gs://bucket/run"):
            entered += 1
    assert entered == 2
