"""The pieces of the format, and the errors of reading and writing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from monolith_jax.checkpoint.tf import (
    BundleWriter,
    open_bundle,
    read_state_file,
    write_bundle,
    write_state_file,
)
from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._protos import Entry, encode_entry
from monolith_jax.checkpoint.tf._table import read_table
from monolith_jax.checkpoint.tf._table_write import write_table
from monolith_jax.errors import CheckpointError

HEADER = b"\x08\x01\x1a\x02\x08\x01"


@pytest.fixture
def prefix(tmp_path) -> Path:
    path = tmp_path / "model.ckpt-1"
    write_bundle(path, {"a": np.arange(4, dtype=np.int32), "b/w": np.ones((300, 300), np.float32)})
    return path


def _index(prefix: Path, entries: dict[bytes, bytes], header: bytes = HEADER) -> None:
    Path(f"{prefix}.index").write_bytes(write_table([(b"", header), *sorted(entries.items())]))


def test_a_snappy_index_is_read(prefix):
    plain = Path(f"{prefix}.index").read_bytes()
    table = read_table(plain)
    assert read_table(write_table(table, 64)) == table

    def snappy(content: bytes) -> bytes:
        size = len(content)
        length = bytes([size & 127 | 128, size >> 7])
        literal = bytes([61 << 2]) + (size - 1).to_bytes(2, "little")
        block = length + literal + content + b"\1"
        return block + mask(crc32c(block)).to_bytes(4, "little")

    from monolith_jax.checkpoint.tf import _table_write

    data = _table_write._Block(16)
    for key, value in table:
        data.add(key, value)
    first = snappy(data.bytes())
    index = _table_write._Block(1)
    index.add(b"z", _table_write.varint(0) + _table_write.varint(len(first) - 5))
    second = snappy(index.bytes())
    handles = b"\0\0" + _table_write.varint(len(first)) + _table_write.varint(len(second) - 5)
    footer = handles.ljust(40, b"\0") + plain[-8:]
    Path(f"{prefix}.index").write_bytes(first + second + footer)
    assert open_bundle(prefix).read("a").tolist() == [0, 1, 2, 3]


def test_missing_names_and_files_are_explained(prefix, tmp_path):
    with pytest.raises(CheckpointError, match=r"no tensor 'b/v'; did you mean b/w"):
        open_bundle(prefix).read("b/v")
    with pytest.raises(CheckpointError, match=r"beside it are model.ckpt-1"):
        open_bundle(tmp_path / "model.ckpt-2")
    with pytest.raises(CheckpointError, match="pass the prefix"):
        open_bundle(f"{prefix}.index")
    (tmp_path / "old").write_bytes(b"V1")
    with pytest.raises(CheckpointError, match="before V2"):
        open_bundle(tmp_path / "old")
    os.remove(f"{prefix}.data-00000-of-00001")
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001: tensor 'a'"):
        open_bundle(prefix).read("a")


@pytest.mark.parametrize(
    ("entries", "header", "message"),
    [
        ({}, HEADER[:2] + b"\x10\x01", "big endian"),
        ({b"v": encode_entry(Entry(21, ()))}, HEADER, "DT_VARIANT"),
        ({b"v": encode_entry(Entry(7, (1 << 60,), 0, 0, 8))}, HEADER, "is too large"),
        ({b"v": encode_entry(Entry(7, (1 << 30,), 0, 0, 8))}, HEADER, "cannot hold"),
        ({b"v": encode_entry(Entry(1, (1 << 40,), 0, 0, 1 << 42))}, HEADER, "file ends at"),
        ({b"v": encode_entry(Entry(1, (3,), 0, 0, 8))}, HEADER, "8 bytes are stored for 12"),
        ({b"v": encode_entry(Entry(1, (1,) * 70, 0, 0, 4))}, HEADER, "70 dimensions"),
        ({b"v": encode_entry(Entry(1, (2,), 3, 0, 8))}, HEADER, "data file 3 of 1"),
        (
            {k: encode_entry(Entry(1, (2,), 0, o, 8)) for k, o in ((b"u", 0), (b"v", 4))},
            HEADER,
            "'u' and 'v' overlap",
        ),
        ({b"v": encode_entry(Entry(1, (2,), slices=(((0, 1),),)))}, HEADER, "not in the index"),
    ],
)
def test_what_an_index_may_not_say(prefix, entries, header, message):
    _index(prefix, entries, header)
    with pytest.raises(CheckpointError, match=message):
        open_bundle(prefix).read("v")


@pytest.mark.parametrize("name", ["a", "b/w"])
def test_damaged_data_is_found_and_named(prefix, name):
    path = Path(f"{prefix}.data-00000-of-00001")
    data = bytearray(path.read_bytes())
    data[3 if name == "a" else 200_000] ^= 4
    path.write_bytes(data)
    with open_bundle(prefix) as bundle:
        with pytest.raises(CheckpointError, match=f"tensor '{name}'.*damaged"):
            bundle.read(name)
        assert bundle.read(name, check_crc=False).size


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def write() -> None:
        with BundleWriter(tmp_path / "m") as writer:
            writer.add("a", np.ones(3))
            writer.add("a", np.ones(3))

    with pytest.raises(CheckpointError, match="'a': written twice"):
        write()
    with pytest.raises(CheckpointError, match=r"TensorFlow has no datetime64"):
        write_bundle(tmp_path / "m", {"t": np.array(["2020"], "M8[D]")})
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
import numpy as np
from monolith_jax.checkpoint.tf import write_bundle, write_state_file
for step in range(1, 10_000):
    value = np.full(300_000, step, np.float32)
    write_bundle(f"{sys.argv[1]}/model.ckpt-{step % 3}", {"a": value, "b": value})
    write_state_file(f"{sys.argv[1]}/model.ckpt-{step % 3}", max_to_keep=2)
    print(step, flush=True)
"""


@pytest.mark.parametrize("round_", range(3))
def test_a_killed_writer_leaves_whole_checkpoints_only(tmp_path, round_):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for _ in range(4):
            assert process.stdout.readline()
        time.sleep(0.011 * round_)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    found = list(tmp_path.glob("*.index"))
    assert found
    for path in found:
        tensors = open_bundle(str(path).removesuffix(".index")).read_many()
        assert np.array_equal(tensors["a"], tensors["b"])
    state = read_state_file(tmp_path)
    assert state is not None
    assert len(state.kept) <= 2


def test_the_state_file_is_tensorflows(tf, tmp_path):
    for step in (1, 2, 3):
        write_bundle(tmp_path / f"é-{step}", {"global_step": np.int64(step)})
        write_state_file(tmp_path / f"é-{step}", max_to_keep=2, timestamp=100.5 + step)
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert state.model_checkpoint_path == f"{tmp_path}/é-3"
    assert list(state.all_model_checkpoint_paths) == [f"{tmp_path}/é-2", f"{tmp_path}/é-3"]
    assert list(state.all_model_checkpoint_timestamps) == [102.5, 103.5]
    assert tf.train.latest_checkpoint(str(tmp_path)) == f"{tmp_path}/é-3"
    tf.compat.v1.train.update_checkpoint_state(
        str(tmp_path), str(tmp_path / "x'\"\n"), all_model_checkpoint_timestamps=[1e9]
    )
    read = read_state_file(tmp_path)
    assert read is not None
    assert read.newest == f"{tmp_path}/x'\"\n"
    assert read.timestamps == (1e9,)
    (tmp_path / "checkpoint").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="no CheckpointState at byte 0"):
        read_state_file(tmp_path)
