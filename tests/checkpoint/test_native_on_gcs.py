"""Native checkpoints in a bucket: complete or invisible, also through faults."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax import storage
from monolith_jax.checkpoint.discovery import completed_step
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.errors import CheckpointError
from monolith_jax.storage import _objects

pytestmark = pytest.mark.usefixtures("quick_retries")


def state(value: float) -> dict[str, Any]:
    return {"table": jnp.full((64, 4), value), "step": jnp.int32(3)}


def restored(folder: str, step: int) -> dict[str, Any]:
    checkpoints = Checkpoints(folder, read_only=True)
    tree, run = checkpoints.restore(step, jax.eval_shape(lambda: state(0.0)))
    checkpoints.close()
    assert run == {"step": step}
    return tree


def save(folder: str, *steps: int, keep: int | None = None) -> None:
    checkpoints = Checkpoints(folder, keep=keep)
    for step in steps:
        checkpoints.save(step, state(step), {"step": step})
    checkpoints.close()


@pytest.fixture(autouse=True)
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_is_saved_comes_back_and_the_newest_are_kept(gcs: Any, staging: Path) -> None:
    folder = gcs / "run/checkpoints"
    save(folder, 1, 2, 3, keep=2)
    assert Checkpoints(folder, read_only=True).steps() == [2, 3]
    assert storage.list_folders(folder) == ["2", "3"]
    assert completed_step(gcs / "run") == 3
    jax.tree.map(np.testing.assert_array_equal, restored(folder, 2), state(2))
    assert list(staging.iterdir()) == []


def test_a_step_without_its_marker_is_not_there_and_goes_with_the_next_run(gcs: Any) -> None:
    folder = gcs / "run/checkpoints"
    save(folder, 1, 2)
    storage.delete(f"{folder}/2/commit_success.txt")
    assert Checkpoints(folder, read_only=True).steps() == [1]
    assert storage.list_folders(folder) == ["1", "2"]
    assert completed_step(gcs / "run") == 1
    save(folder)
    assert storage.list_folders(folder) == ["1"]


def test_the_marker_is_written_after_everything_else(faults: Any) -> None:
    folder = faults.bucket / "run/checkpoints"
    save(folder, 1)
    written = [path for method, path in faults.requests if method == "POST"]
    generations = {}
    for info in storage.list_prefix(f"{folder}/1/"):
        bucket, name = storage.split_gs(info.path)
        generations[name] = int(_objects.stat(bucket, name).generation)
    newest = max(generations, key=lambda name: generations[name])
    assert newest == "run/checkpoints/1/commit_success.txt"
    assert len(written) == len(generations) > 5


KINDS = [("status", 429), ("status", 500), ("status", 503), ("cut", 5), ("lost", 0), ("refuse", 0)]


def test_every_kind_of_fault_on_the_way(faults: Any) -> None:
    folder = faults.bucket / "run/checkpoints"
    for step, (kind, value) in enumerate([*KINDS, ("stall", 0.9)]):
        for method in ("GET", "POST"):
            faults.add(kind, value, method=method)
        save(folder, step)
    for step, (kind, value) in enumerate([*KINDS, ("short", 3)]):
        faults.add(kind, value, where="alt=media")
        jax.tree.map(np.testing.assert_array_equal, restored(folder, step), state(step))
    assert len(faults.done) == 3 * 7


def test_an_upload_that_fails_is_one_error_that_names_the_last_good_one(faults: Any) -> None:
    folder = faults.bucket / "run/checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, state(1), {"step": 1})
    checkpoints.wait()
    for _ in range(100):
        faults.add("status", 503, method="POST")
    checkpoints.save(2, state(2), {"step": 2})
    with pytest.raises(CheckpointError, match=rf"gave up .*last good checkpoint: {folder}/1$"):
        checkpoints.close()
    faults.queue.clear()
    assert Checkpoints(folder, read_only=True).steps() == [1]


def test_a_bucket_that_is_not_there(gcs: Any) -> None:
    with pytest.raises(storage.NotFoundError, match="there is no bucket 'none'"):
        Checkpoints("gs://none/run")
