"""The growing files of a model dir in a bucket: whole in it, and this run's as long as it may."""

from pathlib import Path
from typing import Any

import pytest

from monolith_jax import storage
from monolith_jax.errors import CheckpointError
from monolith_jax.training.mirror import Mirror

pytestmark = pytest.mark.usefixtures("quick_retries")


@pytest.fixture(autouse=True)
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_grew_is_replaced_and_the_next_run_goes_on_from_it(gcs: Any, staging: Path) -> None:
    mirror = Mirror(gcs / "run")
    metrics = mirror.folder / "metrics.jsonl"
    metrics.write_text("one\n")
    mirror.publish()
    assert storage.read_bytes(gcs / "run/metrics.jsonl") == b"one\n"
    metrics.write_text("one\ntwo\n")
    mirror.close()
    assert list(staging.iterdir()) == []
    again = Mirror(gcs / "run")
    assert (again.folder / "metrics.jsonl").read_text() == "one\ntwo\n"
    again.close()


def test_only_what_grew_is_sent(faults: Any) -> None:
    mirror = Mirror(faults.bucket / "run")
    for name in ("metrics.jsonl", "events.out"):
        (mirror.folder / name).write_text("one")
    mirror.publish()
    (mirror.folder / "events.out").write_text("one two")
    faults.requests.clear()
    mirror.close()
    assert [method for method, _ in faults.requests if method == "POST"] == ["POST"]


def test_a_run_that_lost_its_model_dir_leaves_the_files_of_the_next_one_alone(
    gcs: Any, staging: Path
) -> None:
    lost: list[bool] = []

    def allowed() -> None:
        if lost:
            raise CheckpointError("taken over by process 7 on far")

    mirror = Mirror(gcs / "run", allowed)
    (mirror.folder / "metrics.jsonl").write_text("one")
    mirror.publish()
    lost.append(True)
    storage.write_bytes(gcs / "run/metrics.jsonl", b"the next one's")
    (mirror.folder / "metrics.jsonl").write_text("one two")
    with pytest.raises(CheckpointError, match="taken over by process 7 on far"):
        mirror.close()
    assert storage.read_bytes(gcs / "run/metrics.jsonl") == b"the next one's"
    assert list(staging.iterdir()) == []


def test_a_local_model_dir_is_written_in_place(tmp_path: Path) -> None:
    mirror = Mirror(str(tmp_path))
    assert mirror.folder == tmp_path
    (tmp_path / "metrics.jsonl").write_text("one")
    mirror.close()
    assert (tmp_path / "metrics.jsonl").read_text() == "one"
