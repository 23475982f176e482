"""Damaged and hostile files: a typed error or the right data, in bounded memory and time.

`python tests/fuzz_tf_checkpoint.py --count 121500` runs what `test_forged_checkpoints` runs some
of; see there what is checked.
"""

import contextlib
import random
import struct
import tracemalloc
from collections import Counter
from pathlib import Path

import fuzz_tf_checkpoint
import fuzz_tf_forge
import numpy as np
import pytest

from monolith_jax.checkpoint.tf import BundleWriter, load, open_bundle, read_state_file
from monolith_jax.checkpoint.tf import _table_write as tables
from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._protos import Entry, encode_entry, encode_header
from monolith_jax.checkpoint.tf._snappy import decompress
from monolith_jax.checkpoint.tf._table import read_table
from monolith_jax.checkpoint.tf._wire import Malformed, varint
from monolith_jax.errors import CheckpointError, UserError

RUNS = 60  # of each kind
HEADER = (b"", encode_header(1))


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A small checkpoint."""
    prefix = tmp_path_factory.mktemp("sample") / "m"
    with BundleWriter(prefix) as writer:
        writer.add("a/float", np.arange(6, dtype=np.float32).reshape(2, 3))
        writer.add("a/strings", np.array([b"one", b"", b"three" * 30], object))
        writer.add("scalar", np.int64(5))
        writer.add_slice("table", (4, 3), np.s_[:2, :], np.ones((2, 3), np.float32))
        writer.add_slice("table", (4, 3), np.s_[2:, :], np.ones((2, 3), np.float32))
    return prefix


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> fuzz_tf_forge.Sample:
    """A checkpoint with one of everything, to be forged."""
    return fuzz_tf_forge.make_sample(tmp_path_factory.mktemp("everything"))


def _read_all(prefix: Path) -> dict[str, np.ndarray]:
    with open_bundle(prefix) as bundle:
        return {name: bundle.read(name) for name in bundle.entries}


@pytest.mark.parametrize("kind", fuzz_tf_forge.KINDS)
def test_forged_checkpoints_are_typed_errors_or_right(everything, tmp_path, kind):
    outcomes: Counter[str] = Counter()
    for seed in range(RUNS):
        outcomes += fuzz_tf_checkpoint.run_case(everything, tmp_path, kind, seed)
    assert outcomes["index refused"] + outcomes["read refused"] > RUNS // 5
    assert outcomes["read"] > RUNS // 10
    assert outcomes["load"]


@pytest.mark.parametrize("kind", ["values", "fields", "snappy", "strings"])
def test_forged_checkpoints_take_bounded_memory(everything, tmp_path, kind):
    tracemalloc.start()
    for seed in range(RUNS // 4):
        prefix = fuzz_tf_checkpoint.write(fuzz_tf_forge.forge(everything, kind, seed)[0], tmp_path)
        with contextlib.suppress(CheckpointError):
            _read_all(prefix)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 96 << 20


def test_each_flipped_bit_of_the_data_is_found(sample, tmp_path):
    index = Path(f"{sample}.index").read_bytes()
    data = Path(f"{sample}.data-00000-of-00001").read_bytes()
    (tmp_path / "x.index").write_bytes(index)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        (tmp_path / "x.data-00000-of-00001").write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"00001: tensor '.*damaged|strings"):
            _read_all(tmp_path / "x")


def _grown_keys(count: int) -> bytes:
    """A block in which each entry of four bytes makes a key that is one byte longer."""
    entry = b"".join(varint(i) + b"\1\0a" for i in range(count))
    return entry + struct.pack("<II", 0, 1)


def _table_of(block: bytes, handles: list[tuple[int, int]] | None = None) -> bytes:
    framed = block + b"\0"
    out = framed + struct.pack("<I", mask(crc32c(framed)))
    index = tables._Block(1)
    for i, (start, size) in enumerate(handles or [(0, len(block))]):
        index.add(b"z%06d" % i, varint(start) + varint(size))
    framed = index.bytes() + b"\0"
    footer = b"\0\0" + varint(len(out)) + varint(len(framed) - 1)
    out += framed + struct.pack("<I", mask(crc32c(framed)))
    return out + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def test_keys_that_grow_do_not_take_memory():
    with pytest.raises(Malformed, match="longer than such a file can need"):
        read_table(_table_of(_grown_keys(60_000)))


def test_blocks_may_not_be_read_twice():
    block = tables._Block(16)
    block.add(*HEADER)
    content = block.bytes()
    with pytest.raises(Malformed, match="overlap"):
        read_table(_table_of(content, [(0, len(content))] * 3))
    with pytest.raises(Malformed, match="does not fit"):
        read_table(_table_of(content, [(1 << 62, 8)]))


def test_a_snappy_bomb_is_not_unpacked():
    with pytest.raises(Malformed, match="claims to hold"):
        decompress(varint(1 << 40) + b"\0a")
    with pytest.raises(Malformed, match="before its start"):
        decompress(varint(8) + bytes([3 << 2 | 2, 9, 0]))


@pytest.mark.parametrize("shape", [(0, 1 << 62), (1 << 61, 0), (0, 1 << 31, 1 << 31), (0, 1) * 40])
def test_empty_tensors_of_huge_shapes_are_refused(tmp_path, shape):
    """numpy leaves sizes of 0 out when it asks whether an array is too big."""
    entry = encode_entry(Entry(2, shape))
    (tmp_path / "x.index").write_bytes(tables.write_table([HEADER, (b"t", entry)]))
    (tmp_path / "x.data-00000-of-00001").write_bytes(b"")
    with open_bundle(tmp_path / "x") as bundle:
        for read in (
            lambda: bundle.read("t"),
            lambda: bundle.read_slice("t", ...),
            bundle.read_many,
            lambda: load(tmp_path / "x", names=["t"], lossy=True),
        ):
            with pytest.raises(CheckpointError, match=r"'t': its? (shape .* is too large|has 80)"):
                read()


def test_a_wrong_checksum_of_no_bytes_is_found(tmp_path):
    (tmp_path / "x.data-00000-of-00001").write_bytes(b"")
    for crc, good in ((mask(0), True), (mask(1), False)):
        pairs = [HEADER, (b"t", encode_entry(Entry(1, (0, 4), crc=crc)))]
        (tmp_path / "x.index").write_bytes(tables.write_table(pairs))
        with open_bundle(tmp_path / "x") as bundle:
            for read in (
                lambda: bundle.read("t"),
                lambda: bundle.read_slice("t", np.s_[:, 1:]),
                lambda: bundle.read_many()["t"],
                lambda: load(tmp_path / "x")["t"],
            ):
                if good:
                    assert read().shape[0] == 0
                    continue
                with pytest.raises(CheckpointError, match="'t': its data is damaged: the crc32c"):
                    read()
            assert bundle.read("t", check_crc=False).shape == (0, 4)


def test_parts_that_overlap_or_leave_gaps_are_refused(sample, tmp_path):
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(64))
    from monolith_jax.checkpoint.tf._ordered_code import slice_key

    for parts in (((0, 2), (1, 2)), ((0, 2), (2, 1)), ((0, 2), (2, 3))):
        entries = {b"t": Entry(1, (4,), slices=tuple((part,) for part in parts))}
        offset = 0
        for part in parts:
            entries[slice_key(b"t", [part])] = Entry(1, (part[1],), 0, offset, 4 * part[1])
            offset += 4 * part[1]
        pairs = [(key, encode_entry(entry)) for key, entry in sorted(entries.items())]
        (tmp_path / "x.index").write_bytes(tables.write_table([HEADER, *pairs]))
        with pytest.raises(CheckpointError, match=r"'t': .*(parts|outside)"):
            _read_all(tmp_path / "x")


def test_state_files_are_typed_errors(tmp_path):
    good = b'model_checkpoint_path: "a-1"\nall_model_checkpoint_paths: "a-1"\n' * 3
    good += b"last_preserved_timestamp: 1.5\n"
    rng = random.Random(0)
    outcomes = set()
    for _ in range(300):
        (tmp_path / "checkpoint").write_bytes(fuzz_tf_forge.mutated(good, rng))
        said = "checkpoint"
        try:
            read_state_file(tmp_path)
            outcomes.add("read")
        except UserError as error:
            said = str(error)
            outcomes.add("error")
        assert "checkpoint" in said
    assert outcomes == {"read", "error"}
