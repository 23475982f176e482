"""TensorFlow's checkpoints read from gs:// and written to it."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from monolith_jax import storage
from monolith_jax.checkpoint.tf import (
    BundleWriter,
    delete_bundle,
    load,
    merge_bundle,
    open_bundle,
    read_state_file,
    save,
    write_bundle,
    write_state_file,
)
from monolith_jax.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("quick_retries")

TABLE = np.arange(64 * 48, dtype=np.float32).reshape(64, 48)
TENSORS: dict[str, Any] = {
    "big": np.arange(200_000, dtype=np.int32),
    "global_step": np.int64(7),
    "names": np.array([b"a", b"", b"longer" * 20], object),
    "table": TABLE,
}


def _names(bucket: Any) -> list[str]:
    return [info.path.removeprefix(bucket / "") for info in storage.list_prefix(bucket / "")]


def _sharding(*axes: str | None) -> NamedSharding:
    return NamedSharding(jax.make_mesh((4, 2), ("x", "y")), PartitionSpec(*axes))


def _write_in_parts(prefix: str, shards: int, table: np.ndarray) -> None:
    rows = len(table) // shards
    for shard in range(shards):
        with BundleWriter(prefix, shard=shard, shards=shards) as writer:
            part = np.s_[rows * shard : rows * (shard + 1), :]
            writer.add_slice("table", table.shape, part, table[part])
    merge_bundle(prefix, shards)


def test_objects_equal_the_files_written_locally(gcs: Any, tmp_path: Path) -> None:
    write_bundle(gcs / "run/m-1", TENSORS)
    write_bundle(tmp_path / "m-1", TENSORS)
    assert _names(gcs) == ["run/m-1.data-00000-of-00001", "run/m-1.index"]
    for name in _names(gcs):
        assert storage.read_bytes(gcs / name) == (tmp_path / Path(name).name).read_bytes()


def test_listing_and_reading(gcs: Any) -> None:
    write_bundle(gcs / "run/m-1", TENSORS)
    with open_bundle(gcs / "run/m-1") as bundle:
        assert list(bundle.entries) == list(TENSORS)
        assert bundle.entries["table"].shape == TABLE.shape
        for name, value in bundle.read_many().items():
            assert value.tolist() == TENSORS[name].tolist(), name
        assert np.array_equal(bundle.read_slice("table", np.s_[9, 2:40:3]), TABLE[9, 2:40:3])
        assert bundle.read_slice("big", np.s_[-2:]).tolist() == [199_998, 199_999]


def test_no_more_is_asked_for_than_the_index_until_a_tensor_is_read(faults: Any) -> None:
    write_bundle(faults.bucket / "m", TENSORS)
    faults.requests.clear()
    with open_bundle(faults.bucket / "m") as bundle:
        assert len(bundle.entries) == 4
        assert not [path for _, path in faults.requests if ".data-" in path]
        bundle.read("table")
    assert [path for _, path in faults.requests if ".data-" in path]


@pytest.mark.parametrize("axes", [(), ("x",), (None, "y"), ("y", "x")])
def test_saved_and_loaded_sharded(gcs: Any, axes: tuple[str | None, ...]) -> None:
    tree = {"net": {"table": jax.device_put(TABLE, _sharding("x", "y"))}, "step": 3}
    save(gcs / "run/m-2", tree)
    found = load(gcs / "run/m-2", {"net/table": _sharding(*axes), "step": _sharding()})
    assert np.array_equal(found["net/table"], TABLE)
    assert found["net/table"].sharding == _sharding(*axes)
    assert found["step"] == 3


def test_several_writers_over_an_older_checkpoint(gcs: Any) -> None:
    for shards, value in ((4, TABLE), (4, TABLE + 1), (2, TABLE + 2)):
        _write_in_parts(gcs / "run/m", shards, value)
        ends = [f".data-{i:05d}-of-{shards:05d}" for i in range(shards)]
        assert _names(gcs) == [f"run/m{end}" for end in (*ends, ".index")]
        found = load(gcs / "run/m", {"table": _sharding(None, "x")})
        assert np.array_equal(found["table"], value)
    with BundleWriter(gcs / "run/m", shard=0, shards=2) as writer:
        writer.add("table", TABLE)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        open_bundle(gcs / "run/m")


def test_the_state_file_and_its_deletions(gcs: Any) -> None:
    for step in (1, 2, 3):
        write_bundle(gcs / f"run/m-{step}", {"global_step": np.int64(step)})
        write_state_file(gcs / f"run/m-{step}", max_to_keep=2)
    state = read_state_file(gcs / "run")
    assert state is not None
    assert state.newest == gcs / "run/m-3"
    assert open_bundle(state.newest).read("global_step") == 3
    assert not [name for name in _names(gcs) if "m-1" in name]
    assert storage.read_bytes(gcs / "run/checkpoint").startswith(b'model_checkpoint_path: "m-3"\n')
    delete_bundle(gcs / "run/m-2")
    assert not [name for name in _names(gcs) if "m-2" in name]


def test_what_is_missing_or_damaged_is_named(gcs: Any) -> None:
    write_bundle(gcs / "run/m-1", TENSORS)
    with pytest.raises(CheckpointError, match=r"run/m-2.index: no such checkpoint.*m-1"):
        open_bundle(gcs / "run/m-2")
    with pytest.raises(CheckpointError, match="did you mean table"):
        open_bundle(gcs / "run/m-1").read("tabel")
    path = gcs / "run/m-1.data-00000-of-00001"
    data = bytearray(storage.read_bytes(path))
    data[1000] ^= 1
    storage.write_bytes(path, bytes(data))
    with pytest.raises(CheckpointError, match=r"00001: tensor 'big': its data is damaged"):
        open_bundle(gcs / "run/m-1").read("big")
    with pytest.raises(CheckpointError, match=r"00001: tensor 'big': its data is damaged"):
        load(gcs / "run/m-1", {"big": _sharding("x")})
    storage.delete(path)
    with pytest.raises(CheckpointError, match=r"00001: tensor 'table'"):
        open_bundle(gcs / "run/m-1").read("table")


def test_reading_and_writing_go_through_faults(faults: Any) -> None:
    for kind, value in (("status", 503), ("refuse", 0), ("lost", 0)):
        faults.add(kind, value, method="POST")
    write_bundle(faults.bucket / "m", TENSORS)
    assert not faults.queue
    kinds = (("status", 429), ("cut", 100), ("short", 9), ("stall", 1.0), ("refuse", 0))
    for kind, value in kinds:
        faults.add(kind, value, method="GET", where=".data-")
    found = load(faults.bucket / "m", {"table": _sharding("x"), "big": _sharding("y")})
    assert not faults.queue
    assert np.array_equal(found["table"], TABLE)
    assert np.array_equal(found["big"], TENSORS["big"])
