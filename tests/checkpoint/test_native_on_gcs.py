"""Native checkpoints in a bucket: complete or invisible, also through faults."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from monolith_jax import storage
from monolith_jax.checkpoint import _bucket, _state
from monolith_jax.checkpoint.discovery import completed_step
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.checkpoint.tf import open_bundle
from monolith_jax.errors import CheckpointError
from monolith_jax.storage import _objects

pytestmark = pytest.mark.usefixtures("quick_retries")


def state(value: float) -> dict[str, Any]:
    return {"table": jnp.full((64, 4), value, jnp.float32), "step": jnp.int32(3)}


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


@pytest.fixture
def many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny files, as if the state were large: eight of them for a process."""
    monkeypatch.setattr(_state, "FILE_BYTES", 100)


@pytest.mark.usefixtures("many_files")
def test_a_large_state_goes_up_in_several_files(gcs: Any, tmp_path: Path) -> None:
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    table = jax.device_put(np.arange(256.0, dtype=np.float32).reshape(64, 4), sharding)
    checkpoints = Checkpoints(gcs / "c")
    checkpoints.save(5, {"table": table, "step": jnp.int32(3)}, {"step": 5})
    checkpoints.wait()
    (index,) = [p for p in storage.list_files(gcs / "c/5") if p.endswith(".index")]
    with open_bundle(index.removesuffix(".index")) as bundle:
        assert bundle.shards == 8
        assert len(bundle.entries["table"].partitions) == 12  # 96 bytes of 256 each, and the rest
    other = NamedSharding(mesh, PartitionSpec("y", "x"))
    wanted = {"table": jax.ShapeDtypeStruct(table.shape, table.dtype, sharding=other)}
    wanted |= {"step": jax.ShapeDtypeStruct((), jnp.int32)}
    tree, _ = checkpoints.restore(5, wanted)
    assert tree["table"].sharding == other
    jax.tree.map(np.testing.assert_array_equal, tree, {"table": table, "step": 3})
    checkpoints.close()


def test_what_is_not_the_model_s_is_named_before_anything_is_read(faults: Any) -> None:
    folder = faults.bucket / "c"
    save(folder, 1)
    checkpoints = Checkpoints(folder, read_only=True)
    good = jax.eval_shape(lambda: state(0.0))
    table = jax.ShapeDtypeStruct((64, 5), jnp.float32)
    cases = [
        (good | {"table": table}, r"'table' has shape \(64, 4\), the model wants \(64, 5\)"),
        (good | {"step": jax.ShapeDtypeStruct((), jnp.float32)}, "'step' is int32, the model wan"),
        ({"tables": good["table"], "step": good["step"]}, "no 'tables' in it; did you mean table"),
        ({"step": good["step"]}, "the model has no 'table', which is in it"),
    ]
    faults.requests.clear()
    for wanted, message in cases:
        with pytest.raises(CheckpointError, match=message):
            checkpoints.restore(1, wanted)
    assert not [path for _, path in faults.requests if ".data-" in path]


def test_a_step_copied_to_a_folder_is_read_and_gone_on_from_there(gcs: Any, tmp_path: Path) -> None:
    save(gcs / "run/checkpoints", 1, 2)
    storage.download_folder(gcs / "run", tmp_path / "run")
    folder = str(tmp_path / "run/checkpoints")
    assert completed_step(tmp_path / "run") == 2
    jax.tree.map(np.testing.assert_array_equal, restored(folder, 2), state(2))
    save(folder, 3, keep=2)  # in orbax's layout, beside the copied one
    assert Checkpoints(folder, read_only=True).steps() == [2, 3]
    jax.tree.map(np.testing.assert_array_equal, restored(folder, 3), state(3))
    storage.upload(tmp_path / "run/checkpoints/2/run.json", gcs / "x/checkpoints/4/run.json")
    storage.write_bytes(gcs / "x/checkpoints/4/commit_success.txt", b"")
    with pytest.raises(CheckpointError, match=r"/4 is of orbax's layout.*copy the model dir"):
        restored(gcs / "x/checkpoints", 4)


def test_an_old_step_that_cannot_be_deleted_stops_nothing_and_goes_later(
    faults: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = faults.bucket / "run/checkpoints"
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(1, state(1), {"step": 1})
    checkpoints.wait()
    for _ in range(6):
        faults.add("status", 503, method="DELETE")
    checkpoints.save(2, state(2), {"step": 2})
    checkpoints.wait()
    assert not faults.queue
    assert "an old checkpoint stays until the next is saved" in caplog.text
    assert checkpoints.steps() == [2]
    assert storage.list_folders(folder) == ["1", "2"]
    checkpoints.save(3, state(3), {"step": 3})
    checkpoints.close()
    assert storage.list_folders(folder) == ["3"]


def test_a_run_that_may_not_write_any_more_makes_no_step_visible(gcs: Any) -> None:
    def refuse() -> None:
        raise CheckpointError("taken over by process 7 on h")

    folder = gcs / "run/checkpoints"
    checkpoints = Checkpoints(folder, allowed=refuse)
    checkpoints.save(1, state(1), {"step": 1})
    with pytest.raises(
        CheckpointError, match=r"taken over by process 7 on h; the last good.* none"
    ):
        checkpoints.close()
    assert Checkpoints(folder, read_only=True).steps() == []


def test_staging_of_the_dead_goes_and_that_of_others_stays(staging: Path) -> None:
    own = _bucket.staging_folder()
    _, _, machine, pid, *_ = own.name.split("-")
    dead = staging / f"monolith-jax-{machine}-{pid}-1-abc"  # the number was given to another
    elsewhere = staging / f"monolith-jax-0{machine[1:]}x-1-1-abc"
    for folder in (dead, elsewhere):
        (folder / "5").mkdir(parents=True)
    assert _bucket.staging_folder() != own
    assert (own.exists(), dead.exists(), elsewhere.exists()) == (True, False, True)


def test_two_processes_may_clear_up_at_once(staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _bucket.staging_folder().name.split("-")[2]
    dead = staging / f"monolith-jax-{machine}-1-1-abc"
    dead.mkdir()

    def gone(process: Any) -> bool:
        if process.pid == 1:
            dead.rmdir()  # the other one is faster
        return process.pid == 1

    monkeypatch.setattr(_bucket, "is_gone", gone)
    assert _bucket.staging_folder().exists()


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
    assert len(written) == len(generations) == 4


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
