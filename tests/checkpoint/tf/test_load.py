"""Into shardings and back, alone and in several processes."""

import itertools
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from monolith_jax.checkpoint.tf import (
    BundleWriter,
    _plan,
    _read,
    load,
    merge_bundle,
    open_bundle,
    save,
    write_bundle,
)
from monolith_jax.errors import CheckpointError


def _sharding(*axes: str | None) -> NamedSharding:
    return NamedSharding(jax.make_mesh((4, 2), ("x", "y")), PartitionSpec(*axes))


TABLE = np.arange(24 * 16, dtype=np.float32).reshape(24, 16)


@pytest.fixture
def prefix(tmp_path) -> Path:
    """A table in 2 x 2 parts over 2 data files, and a few whole tensors."""
    path = tmp_path / "m"
    for shard in range(2):
        with BundleWriter(path, shard=shard, shards=2) as writer:
            for part in np.s_[0:6, 6:16]:
                rows = slice(10 * shard, 10 + 14 * shard)
                writer.add_slice("table", TABLE.shape, (rows, part), TABLE[rows, part])
            if shard:
                writer.add("bias", TABLE[0].astype(jnp.bfloat16))
                writer.add("whole", TABLE)
                writer.add("step", np.int64(7))
                writer.add("note", b"text")
    merge_bundle(path, 2)
    return path


@pytest.mark.parametrize("axes", [(), ("x",), (None, "y"), ("y", "x"), (("x", "y"),), (None, "x")])
@pytest.mark.parametrize("name", ["table", "whole"])
def test_any_sharding_of_any_partition(prefix, axes, name):
    sharding = _sharding(*axes)
    found = load(prefix, {name: sharding})[name]
    assert found.sharding == sharding
    assert np.array_equal(found, TABLE)
    # a donated array must not take the buffers of another along
    doubled = jax.jit(lambda x: x * 2, donate_argnums=0)(found)
    assert np.array_equal(doubled, TABLE * 2)


def test_all_tensors_but_strings_by_default(prefix):
    found = load(prefix, {}, max_memory=1 << 16)
    assert set(found) == {"table", "bias", "whole", "step"}
    assert found["step"].dtype == jnp.int32
    assert found["bias"].dtype == jnp.bfloat16
    with pytest.raises(CheckpointError, match="no array can hold strings"):
        load(prefix, names=["note"])
    with pytest.raises(CheckpointError, match="did you mean table"):
        load(prefix, names=["tabel"])
    with pytest.raises(CheckpointError, match=r"'bias'.*does not fit its sharding"):
        load(prefix, {"bias": _sharding(None, "x")})
    with pytest.raises(CheckpointError, match=r"'whole'.*does not fit its sharding"):
        load(prefix, {"whole": _sharding("x", None, None)})  # more axes than dimensions


def test_integers_that_do_not_fit_are_an_error(tmp_path):
    write_bundle(tmp_path / "m", {"id": np.array([1 << 40])})
    with pytest.raises(CheckpointError, match="'id': its int64 do not fit int32"):
        load(tmp_path / "m")


def test_floats_are_not_rounded_unasked(tmp_path):
    values = {
        "float": np.array([1 + 2**-40]),
        "complex": np.array([1j * (1 + 2**-40)]),
        "half": np.ones(1, np.float16),
    }
    write_bundle(tmp_path / "m", values)
    for name in ("float", "complex"):
        with pytest.raises(
            CheckpointError, match=rf"'{name}': its {name}\d+ would be rounded.*x64"
        ):
            load(tmp_path / "m", names=["half", name])
    assert load(tmp_path / "m", names=["half"])["half"].dtype == np.float16
    rounded = load(tmp_path / "m", lossy=True)
    assert {name: (array.dtype, array.item()) for name, array in rounded.items()} == {
        "complex": (np.complex64, 1j),
        "float": (np.float32, 1),
        "half": (np.float16, 1),
    }
    with jax.enable_x64(True):
        kept = load(tmp_path / "m")
        assert all(np.array_equal(kept[name], value) for name, value in values.items())
        assert all(kept[name].dtype == value.dtype for name, value in values.items())


def test_progress_ends_at_all_of_it(prefix):
    seen: list[tuple[str, float, int]] = []
    load(prefix, names=["whole"], progress=lambda *what: seen.append(what))
    assert seen[-1] == ("m", 1.0, TABLE.nbytes)


@pytest.mark.parametrize("axes", [("x",), (None, "x")])
def test_damage_is_found_in_any_sharding(prefix, axes):
    path = Path(f"{prefix}.data-00001-of-00002")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"tensor 'table.*damaged"):
        load(prefix, {"table": _sharding(*axes)})
    load(prefix, {"table": _sharding(*axes)}, check_crc=False)


@pytest.mark.parametrize("inline", [-1, 1 << 20])  # on several threads, on none
@pytest.mark.parametrize("gap", [0, 40, 1 << 20])
def test_ranges_hold_each_wanted_byte_once(prefix, gap, inline, monkeypatch):
    monkeypatch.setattr(_read, "_INLINE", inline)
    monkeypatch.setattr(_read, "threads", lambda: 3)
    with open_bundle(prefix) as bundle:
        boxes = [((3, 9), (2, 5)), ((8, 20), (4, 15)), ((23, 24), (0, 16))]
        jobs, out = bundle.jobs("whole", boxes)
        _read.read_jobs(bundle._files, jobs, check_crc=True, max_memory=1 << 16, gap=gap)
    for box, raw in zip(boxes, out, strict=True):
        index = tuple(slice(*span) for span in box)
        assert raw.tobytes() == TABLE[index].tobytes()
    ends = [(start, start + size) for start, size, _ in sorted(jobs[0].spans)]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))
    wanted = np.zeros(TABLE.shape, bool)
    for box in boxes:
        wanted[tuple(slice(*span) for span in box)] = True
    read = sum(stop - start for start, stop in ends)
    assert read >= 4 * wanted.sum()
    if gap == 0:
        assert read == 4 * wanted.sum()


@pytest.mark.parametrize("inline", [-1, 1 << 30])
def test_many_are_what_each_is(tmp_path, inline, monkeypatch):
    monkeypatch.setattr(_read, "_INLINE", inline)
    monkeypatch.setattr(_read, "threads", lambda: 3)
    tensors = {f"large_{i}": np.arange(i, i + 500_000, dtype=np.int32) for i in range(4)}
    tensors |= {"text": np.array([b"x" * 100_000], object), "small": np.ones(3)}
    with BundleWriter(tmp_path / "m") as writer:
        for name, value in tensors.items():
            writer.add(name, value)
        for rows in (np.s_[:10], np.s_[10:]):
            writer.add_slice("table", TABLE.shape, rows, TABLE[rows])
    tensors["table"] = TABLE
    with open_bundle(tmp_path / "m") as bundle:
        found = bundle.read_many(["table", "large_3", "small", *tensors])
        assert list(found)[:3] == ["table", "large_3", "small"]
        assert set(found) == set(tensors)
        for name, value in found.items():
            assert value.dtype == tensors[name].dtype
            assert np.array_equal(value, tensors[name])
            assert value.tobytes() == bundle.read(name).tobytes() or value.dtype == object
    path = tmp_path / "m.data-00000-of-00001"
    data = bytearray(path.read_bytes())
    data[2_000_000 + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="tensor 'large_1': its data is damaged"):
        open_bundle(path.parent / "m").read_many()


def test_split_never_exceeds_the_chunk():
    shape = (3, 5, 40, 4)
    pieces = list(_plan.split(shape, _plan.Range((), 0, 3), 256))
    places = [_plan.extent(shape, piece) for piece in pieces]
    assert max(size for _, size in places) <= 256
    assert [start for start, _ in places] == np.cumsum([0] + [s for _, s in places[:-1]]).tolist()


def test_save_writes_paths_and_shards(prefix, tmp_path):
    table = jax.device_put(TABLE, _sharding("y", "x"))
    save(tmp_path / "saved", {"net": [table, None], "a/b": jnp.float16(1)})
    found = open_bundle(tmp_path / "saved").read_many()
    assert list(found) == ["a/b", "net/0"]
    assert np.array_equal(found["net/0"], TABLE)
    with pytest.raises(CheckpointError, match="two leaves"):
        save(tmp_path / "saved", {"a": {"b": 1}, "a/b": 2})


PROCESS = """
import sys
from pathlib import Path
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from monolith_jax.checkpoint.tf import load, save
from monolith_jax.errors import CheckpointError
port, index, folder = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, int(index), initialization_timeout=60)
mesh = jax.make_mesh((4,), ("x",))
rows, all_ = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
big = np.arange(4 * 50_000, dtype=np.float32).reshape(4, -1)
found = load(f"{folder}/four", {"big": rows, "table": rows})
for shard in found["big"].addressable_shards:
    assert np.array_equal(shard.data, big[shard.index])
tree = {**found, "bias": jax.make_array_from_callback((3,), all_, lambda at: np.ones(3)[at])}
save(f"{folder}/two", tree)
try:
    load(f"{folder}/bad", {"big": rows})
except CheckpointError as error:
    print("caught", error)
"""


def test_four_processes_files_on_two_and_theirs_on_one(tmp_path):
    big = np.arange(4 * 50_000, dtype=np.float32).reshape(4, -1)
    for shard in range(4):
        with BundleWriter(tmp_path / "four", shard=shard, shards=4) as writer:
            rows = np.s_[6 * shard : 6 * shard + 6, :]
            writer.add_slice("table", TABLE.shape, rows, TABLE[rows])
            if shard == 2:
                writer.add("big", big)
    merge_bundle(tmp_path / "four", 4)
    write_bundle(tmp_path / "bad", {"big": big})
    data = bytearray((tmp_path / "bad.data-00000-of-00001").read_bytes())
    data[-1] ^= 1
    (tmp_path / "bad.data-00000-of-00001").write_bytes(data)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(port), str(i), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
        assert "caught" in text, text
        assert "tensor 'big': its data is damaged" in text
    found = load(tmp_path / "two", {"big": _sharding("x"), "table": _sharding(None, "y")})
    assert np.array_equal(found["big"], big)
    assert np.array_equal(found["table"], TABLE)
    with open_bundle(tmp_path / "two") as bundle:
        assert len(bundle.entries["big"].partitions) == 4
        assert bundle.read("bias").tolist() == [1, 1, 1]


@pytest.mark.parametrize(("size", "step"), [(4, 64), (1 << 20, 64), (5 << 20, 2 << 20)])
def test_buffers_begin_where_pages_do(size, step):
    buffer = _read.aligned(size)
    assert buffer.ctypes.data % step == 0
    assert len(buffer) == size


def test_an_error_on_any_thread_ends_the_work(prefix):
    with open_bundle(prefix) as bundle:
        jobs, _ = bundle.jobs("whole", [((0, 24), (0, 16))])
    done = []

    def run(job, piece):
        done.append(piece)
        if len(done) >= 3:
            raise CheckpointError(f"piece {piece}")

    with pytest.raises(CheckpointError, match="piece"):
        _read._share(run, ((jobs[0], i) for i in range(1000)), 3)
    assert 3 <= len(done) <= 6
    with pytest.raises(ZeroDivisionError):  # of the one that makes the work
        _read._share(run, ((jobs[0], 1 // i) for i in (0,)), 3)
