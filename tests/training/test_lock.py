"""Two trainers in one model dir: the second is told who is there; a killed one leaves no lock."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from monolith_jax import storage
from monolith_jax.errors import CheckpointError
from monolith_jax.storage import conditional
from monolith_jax.training import lease
from monolith_jax.training.lock import held

pytestmark = pytest.mark.usefixtures("quick_retries")

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


def hold(path: str, **changes: Any) -> str:
    """Writes a lease as another run would; returns its generation."""
    content = {"owner": "o", "process": ["00000000", 7, ""], "host": "far", "beat": 1} | changes
    found = conditional.read(path)
    generation = found.generation if found else conditional.ABSENT
    return conditional.write(path, json.dumps(content).encode(), generation)


def test_in_a_bucket_the_second_is_told_who_is_there(gcs: Any) -> None:
    for _ in range(2):  # it is given back
        with (
            held(gcs / "run"),
            pytest.raises(CheckpointError, match=f"in use by process {os.getpid()} on "),
            held(gcs / "run"),
        ):
            pass
    with held(gcs / "run2"):  # another folder, another lock
        pass


def test_in_a_bucket_a_killed_process_of_this_machine_is_followed_at_once(gcs: Any) -> None:
    command = [sys.executable, "-c", HOLD, gcs / "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(CheckpointError, match=f"process {process.pid} on "),
            held(gcs / "run"),
        ):
            pass
        process.kill()
        process.wait()
    with held(gcs / "run") as check:
        check()


def test_a_holder_elsewhere_that_gives_a_sign_is_left_alone(
    gcs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = gcs / "run/.lock"
    hold(path)
    beats = iter([2, 3])
    monkeypatch.setattr(lease, "_pause", lambda _: hold(path, beat=next(beats)))
    with (
        pytest.raises(CheckpointError, match="run is in use by process 7 on far; wait for it, or"),
        held(gcs / "run"),
    ):
        pass
    assert list(beats) == [3]  # one look more was enough


def test_a_holder_elsewhere_that_stays_silent_is_followed(
    gcs: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hold(gcs / "run/.lock")

    def grow_stale(_: float) -> None:
        monkeypatch.setattr(lease, "STALE_S", -10.0)

    monkeypatch.setattr(lease, "_pause", grow_stale)
    with held(gcs / "run") as check:
        check()
    assert "process 7 on far was there" in caplog.text


def test_one_that_went_away_or_left_nonsense_is_no_obstacle(
    gcs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = gcs / "run/.lock"
    hold(path)
    monkeypatch.setattr(lease, "_pause", lambda _: storage.delete(path))
    with held(gcs / "run"):
        pass
    monkeypatch.setattr(lease, "_pause", lambda _: storage.write_bytes(path, b'{"free": 1}'))
    for nonsense in (b"", b"[1]", b'{"process": "x"}'):
        storage.write_bytes(path, nonsense)
        with held(gcs / "run"):
            assert json.loads(storage.read_bytes(path))["process"][1] == os.getpid()


def test_whose_place_was_taken_learns_it_and_leaves_the_lock_alone(gcs: Any) -> None:
    path = gcs / "run/.lock"
    mine = lease.Lease(gcs / "run")
    mine.check()
    hold(path)
    mine.beat()
    with pytest.raises(CheckpointError, match="run was taken over by process 7 on far, after"):
        mine.check()
    mine.release()
    assert b"far" in storage.read_bytes(path)


def test_after_a_long_silence_the_bucket_is_asked(
    faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = lease.Lease(faults.bucket / "run")
    monkeypatch.setattr(lease, "BEAT_S", -1.0)
    before = len(faults.requests)
    mine.check()
    assert len(faults.requests) > before
    for _ in range(6):
        faults.add("status", 503)
    mine.check()  # it could not ask, but nobody can have taken its place yet
    for _ in range(6):
        faults.add("status", 503)
    monkeypatch.setattr(lease, "STALE_S", -1.0)
    with pytest.raises(CheckpointError, match="may have been taken over by another run: "):
        mine.check()
    assert not faults.queue
    mine.release()


def test_the_beat_goes_on_by_itself(gcs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    with held(gcs / "run"):
        first = json.loads(storage.read_bytes(gcs / "run/.lock"))["beat"]
        deadline = time.monotonic() + 60
        while json.loads(storage.read_bytes(gcs / "run/.lock"))["beat"] < first + 3:
            assert time.monotonic() < deadline
    assert set(json.loads(storage.read_bytes(gcs / "run/.lock"))) == {"free"}
