"""Damaged and hostile files: a typed error or the right data, in bounded memory and time."""

import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.checkpoint.tf import Bundle, BundleWriter, load, open_bundle, read_state_file
from monolith_jax.checkpoint.tf import _table_write as tables
from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._protos import Entry, encode_entry, encode_header
from monolith_jax.checkpoint.tf._snappy import decompress
from monolith_jax.checkpoint.tf._table import read_table
from monolith_jax.checkpoint.tf._wire import Malformed, varint
from monolith_jax.errors import CheckpointError, UserError

# Of each kind. Seeds from 1000 on were run once, in a script that calls `fuzz`, without measuring
# memory: 40,000 of "index", 30,000 of "values", 30,000 of "data", 10,000 of "blocks".
RUNS = 500
LOADS = 60
HEADER = (b"", encode_header(1))


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A small checkpoint with one of everything."""
    prefix = tmp_path_factory.mktemp("sample") / "m"
    with BundleWriter(prefix) as writer:
        writer.add("a/float", np.arange(6, dtype=np.float32).reshape(2, 3))
        writer.add("a/strings", np.array([b"one", b"", b"three" * 30], object))
        writer.add("scalar", np.int64(5))
        writer.add("empty", np.zeros((0, 4), np.float64))
        writer.add_slice("table", (4, 3), np.s_[:2, :], np.ones((2, 3), np.float32))
        writer.add_slice("table", (4, 3), np.s_[2:, :], np.ones((2, 3), np.float32))
    return prefix


def _read_all(prefix: Path) -> dict[str, np.ndarray]:
    with open_bundle(prefix) as bundle:
        return {name: _read_one(bundle, name) for name in bundle.entries}


def _load_all(prefix: Path) -> dict[str, np.ndarray]:
    found = load(prefix, {"table": NamedSharding(jax.make_mesh((2,), ("x",)), P("x"))}, lossy=True)
    found |= load(prefix, names=["a/float", "scalar", "empty"], lossy=True)
    return {name: np.asarray(value) for name, value in found.items()}


def _read_one(bundle: Bundle, name: str) -> np.ndarray:
    info = bundle.entries[name]
    value = bundle.read(name)
    assert (value.shape, value.dtype) == (info.shape, info.dtype)
    return value


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 5))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _splice(data: bytearray, rng: random.Random) -> None:
    at, source = rng.randrange(len(data)), rng.randrange(len(data))
    piece = data[source : source + rng.randrange(1, 40)]
    data[at : at + rng.choice((0, len(piece)))] = piece


def _extreme(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    value = varint(rng.choice((0, 127, 1 << 31, 1 << 40, 1 << 63, (1 << 64) - 1)))
    data[at : at + rng.choice((1, len(value)))] = value


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [_flip, _cut, _splice, _extreme]


def _mutated_index(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    rng.choice(MUTATIONS)(out, rng)
    return bytes(out)


def _mutated_values(data: bytes, rng: random.Random) -> bytes:
    """Changes a value or a key and makes all checksums right: an index that someone forged."""
    table = dict(read_table(data))
    key = rng.choice(list(table))
    value, new_key = bytearray(table.pop(key)), bytearray(key)
    if value and rng.random() < 0.8:
        rng.choice(MUTATIONS)(value, rng)
    elif new_key:
        rng.choice(MUTATIONS)(new_key, rng)
    table[bytes(new_key)] = bytes(value)
    return tables.write_table(sorted(table.items()), rng.choice((1, 64, 262144)))


def _mutated_blocks(data: bytes, rng: random.Random) -> bytes:
    """Changes the contents of a block, sometimes calls it snappy, and makes its checksum right."""
    out = bytearray(tables.write_table(read_table(data), 64))
    ends = [at for at in range(5, len(out) - 48) if _is_trailer(out, at)]
    start, end = 0, rng.choice(ends)
    for other in ends:
        if other < end:
            start = other + 5
    content = out[start:end]
    rng.choice(MUTATIONS)(content, rng)
    content = content[: end - start].ljust(end - start, b"\0")
    framed = bytes(content) + bytes([rng.choice((0, 0, 1))])
    out[start : end + 5] = framed + struct.pack("<I", mask(crc32c(framed)))
    if rng.random() < 0.2:
        _extreme(out, rng)
    return bytes(out)


def _is_trailer(data: bytearray, at: int) -> bool:
    """Returns whether a block's type byte and checksum stand at `at`."""
    stored = struct.unpack_from("<I", data, at + 1)[0]
    return data[at] == 0 and any(
        mask(crc32c(data[start : at + 1])) == stored for start in range(max(0, at - 200), at)
    )


def fuzz(
    sample: Path,
    folder: Path,
    kind: str,
    seed: int,
    read: Callable[[Path], dict[str, np.ndarray]] = _read_all,
) -> str:
    """Runs one case; returns what came of it. Anything but a typed error is raised."""
    rng = random.Random(f"{kind}{seed}")
    index = Path(f"{sample}.index").read_bytes()
    data = Path(f"{sample}.data-00000-of-00001").read_bytes()
    if kind == "data":
        data = _mutated_index(data, rng)
    else:
        change = {"index": _mutated_index, "values": _mutated_values, "blocks": _mutated_blocks}
        index = change[kind](index, rng)
    (folder / "x.index").write_bytes(index)
    (folder / "x.data-00000-of-00001").write_bytes(data)
    said = ""
    try:
        found = read(folder / "x")
        if kind == "data":  # the index is whole, so what passes its checksums is the truth
            for name, value in read(sample).items():
                assert np.array_equal(found[name], value), name
    except CheckpointError as error:
        said = str(error)
    assert not said or str(folder / "x") in said
    return "error" if said else "read"


@pytest.mark.parametrize("kind", ["index", "values", "blocks", "data"])
def test_mutated_files_are_typed_errors_in_bounded_memory(sample, tmp_path, kind):
    _read_all(sample)
    runs = RUNS // 5 if kind == "blocks" else RUNS  # finding the blocks takes its time
    tracemalloc.start()
    outcomes = [fuzz(sample, tmp_path, kind, seed) for seed in range(runs)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20
    assert outcomes.count("error") > runs // 4


@pytest.mark.parametrize("kind", ["index", "values", "data"])
def test_load_of_mutated_files_is_a_typed_error_in_bounded_memory(sample, tmp_path, kind):
    assert set(_load_all(sample)) == {"table", "a/float", "scalar", "empty"}
    tracemalloc.start()
    outcomes = [fuzz(sample, tmp_path, kind, seed, _load_all) for seed in range(LOADS)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20
    assert outcomes.count("error") > LOADS // 10


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
        (tmp_path / "checkpoint").write_bytes(_mutated_index(good, rng))
        said = "checkpoint"
        try:
            read_state_file(tmp_path)
            outcomes.add("read")
        except UserError as error:
            said = str(error)
            outcomes.add("error")
        assert "checkpoint" in said
    assert outcomes == {"read", "error"}
