"""Damaged and hostile assets: an error that names file, table and byte, in bounded memory."""

import os
import struct
import tracemalloc

import numpy as np
import pytest
from crc32c import crc32c

from monolith_jax.checkpoint.monolith_assets import open_assets
from monolith_jax.errors import CheckpointError

MUTATIONS = 1500


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data, length=None):
    head = struct.pack("<Q", len(data) if length is None else length)
    return head + masked(head) + data + masked(data)


def entries_of(messages, rng, count, dim=3):
    entries = [messages.EntryDump(id=i + 1, last_update_ts_sec=1000 * i) for i in range(count)]
    for entry in entries:
        entry.num.extend(rng.normal(size=dim).astype(np.float32))
        adam = entry.opt.dump.add().adam
        adam.m.extend([1.0, 2.0])
        adam.v.extend([3.0, 4.0])
        adam.beta1_power = 0.5
        entry.opt.dump.add().dynamic_wd_adagrad.last_update_step = 70000
    return entries


def same(a, b):
    return (
        np.array_equal(a.ids, b.ids)
        and np.array_equal(a.embeddings.view(np.uint32), b.embeddings.view(np.uint32))
        and np.array_equal(a.last_update_ts_sec, b.last_update_ts_sec)
        and len(a.slices) == len(b.slices)
        and all(
            x.optimizer == y.optimizer
            and all(x.slots[k].tobytes() == y.slots[k].tobytes() for k in y.slots)
            for x, y in zip(a.slices, b.slices, strict=True)
        )
    )


@pytest.fixture
def single(writer, messages, tmp_path):
    folder = tmp_path / "single.assets"
    writer.single(folder, "user", [entries_of(messages, np.random.default_rng(1), 4)])
    return folder, folder / "user-00000-of-00001"


@pytest.fixture
def multi(writer, messages, tmp_path):
    folder = tmp_path / "multi.assets"
    rng = np.random.default_rng(2)
    tables = {"a": entries_of(messages, rng, 5), "b": entries_of(messages, rng, 4, dim=2)}
    writer.multi(folder, "multi", [tables])
    return folder, folder / "multi-00000-of-00001"


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_every_truncation_is_found(request, kind, compiled):
    folder, path = request.getfixturevalue(kind)
    data = path.read_bytes()
    whole = open_assets(folder).read()
    boundaries = {0}  # of records: a single table that ends there is whole
    while kind == "single" and (at := max(boundaries)) < len(data):
        boundaries.add(at + 16 + int.from_bytes(data[at : at + 8], "little"))
    for end in range(len(data)):
        path.write_bytes(data[:end])
        if end in boundaries and kind == "single":
            assert open_assets(folder).read(compiled=compiled)["user"].ids.size < 4
            continue
        with pytest.raises(CheckpointError) as error:
            open_assets(folder).read(compiled=compiled)
        assert str(path) in str(error.value)
        assert "at byte" in str(error.value)
    path.write_bytes(data)
    assert all(same(whole[name], table) for name, table in open_assets(folder).read().items())


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_every_flipped_bit_is_found(request, kind):
    """In the data and in the list of tables; in a snappy stream a bit may mean the same."""
    folder, _ = request.getfixturevalue(kind)
    whole = open_assets(folder).read()
    for target in sorted(folder.iterdir()):
        data = target.read_bytes()
        for bit in range(0, 8 * len(data), 5):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            target.write_bytes(damaged)
            try:
                found = open_assets(folder).read()
            except CheckpointError as error:
                assert str(target) in str(error) or ".meta" in target.name  # noqa: PT017
            else:
                assert kind == "multi"
                assert all(same(whole[name], found[name]) for name in whole)
        target.write_bytes(data)


def mutate(rng, data):
    """Damages bytes in one of several ways."""
    data = bytearray(data)
    at = int(rng.integers(len(data)))
    kind = rng.integers(5)
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[at] = int(rng.choice([0, 1, 9, 0x0D, 0x15, 0x1A, 0x20, 0x7F, 0x80, 0xFF]))
    elif kind == 2:
        del data[at : at + int(rng.integers(1, 9))]
    elif kind == 3:
        data[at:at] = rng.integers(0, 256, int(rng.integers(1, 9)), np.uint8).tobytes()
    else:
        other = int(rng.integers(len(data)))
        data[at : at + 8] = data[other : other + 8]
    return bytes(data)


def test_mutated_entries_with_right_checksums(single, messages):
    """What is read is what protobuf reads; everything else is an error; both walks agree."""
    folder, path = single
    rng = np.random.default_rng(3)
    sound = [e.SerializeToString() for e in entries_of(messages, rng, 3)]
    read = 0
    for _ in range(MUTATIONS):
        records = list(sound)
        victim = int(rng.integers(3))
        records[victim] = mutate(rng, records[victim])
        path.write_bytes(b"".join(frame(record) for record in records))
        found = []
        for compiled in (True, False):
            try:
                found.append(open_assets(folder).read(compiled=compiled)["user"])
            except CheckpointError as error:
                assert f"{path}: table 'user' entry" in str(error)  # noqa: PT017
                found.append(str(error))
        if isinstance(found[0], str):
            assert found[0] == found[1]
            continue
        read += 1
        assert same(found[0], found[1])
        want = [messages.EntryDump.FromString(record) for record in records]
        assert found[0].ids.tolist() == [e.id for e in want]
        assert found[0].last_update_ts_sec.tolist() == [e.last_update_ts_sec for e in want]
        assert [list(row) for row in found[0].embeddings] == [list(e.num) for e in want] or (
            np.isnan(found[0].embeddings).any()
        )
    assert MUTATIONS // 5 < read < MUTATIONS


def test_mutated_snappy_streams(multi):
    folder, path = multi
    data, rng = path.read_bytes(), np.random.default_rng(4)
    whole = open_assets(folder).read()
    for _ in range(MUTATIONS):
        path.write_bytes(mutate(rng, data))
        texts = []
        for compiled in (True, False):
            try:
                found = open_assets(folder).read(compiled=compiled)
                assert all(same(whole[name], found[name]) for name in whole)
                texts.append("")
            except CheckpointError as error:
                texts.append(str(error))
        assert bool(texts[0]) == bool(texts[1])


def test_huge_claims_take_no_memory(single, multi, messages):
    """A record of 2^60 bytes, a block of 4 GiB, a table of 2^60 entries."""
    folder, path = single
    multi_folder, multi_path = multi
    meta = multi_folder / "multi.meta-00000-of-00001"
    claims = messages.MultiHashTableMetadata(table_name="a", num_entries=1 << 60)
    hostile = [
        (folder, path, frame(b"x" * 9, 1 << 60), r"a record of 1152921504606846976 bytes"),
        (folder, path, frame(b"x" * 9, 1 << 23), r"a record of 8388608 bytes is cut off"),
        (folder, path, frame(b"x" * 9, (1 << 64) - 1), r"a record of 18446744073709551615 bytes"),
        (multi_folder, multi_path, b"\xff\xff\xff\xff1234", r"a snappy block of 4294967295 bytes"),
        (multi_folder, multi_path, b"\0\0\0\6\xff\xff\xff\x7f12", r"claims to hold 268435455"),
        (multi_folder, meta, frame(claims.SerializeToString()), r"ends after 5 of 11529|dim 2"),
    ]
    open_assets(folder).read()
    for where, target, data, match in hostile:
        before = target.read_bytes()
        target.write_bytes(data)
        tracemalloc.start()
        with pytest.raises(CheckpointError, match=match):
            open_assets(where).read()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        target.write_bytes(before)


def test_entries_of_another_form(writer, messages, tmp_path):
    rng = np.random.default_rng(5)
    unlike = entries_of(messages, rng, 2, dim=3) + entries_of(messages, rng, 1, dim=4)
    writer.single(tmp_path, "t", [unlike])
    with pytest.raises(
        CheckpointError, match=r"table 't' entry 2 at byte \d+: an entry with dim 4"
    ):
        open_assets(tmp_path).read()
    writer.single(tmp_path, "t", [unlike[:2], unlike[2:]])
    (tmp_path / "t-00000-of-00001").unlink()
    for read in (lambda a: a.read(), lambda a: list(a.batches("t"))):
        with pytest.raises(CheckpointError, match=r"00001-of-00002: .* dim 4.*00000-of-00002 have"):
            read(open_assets(tmp_path))


def test_an_optimizer_that_is_not_known(single):
    folder, path = single
    path.write_bytes(frame(bytes.fromhex("09 0100000000000000 1a04 0a02 2a00")))
    with pytest.raises(CheckpointError, match=r"an optimizer of number 5; known are 1 adagrad, 2"):
        open_assets(folder).read()


def test_bytes_behind_the_last_table(multi, messages):
    folder, _ = multi
    meta = messages.MultiHashTableMetadata(table_name="a", num_entries=5).SerializeToString()
    path = folder / "multi.meta-00000-of-00001"
    path.write_bytes(frame(meta))
    with pytest.raises(CheckpointError, match="bytes after the last table's last entry"):
        open_assets(folder).read()
    path.write_bytes(frame(meta) * 2)
    with pytest.raises(CheckpointError, match="'a' for the second time"):
        open_assets(folder)


def test_shards_that_do_not_make_a_whole(single):
    folder, path = single
    path.rename(folder / "user-00001-of-00003")
    with pytest.raises(CheckpointError, match="1 of 3 shards; missing 00000, 00002"):
        open_assets(folder)
    (folder / "user-00000-of-00002").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"of 3 shards, but .*user-00000-of-00002 is of 2"):
        open_assets(folder)
    for left in folder.iterdir():
        left.unlink()
    (folder / "user-00009-of-00001").write_bytes(b"")
    with pytest.raises(CheckpointError, match="shard 00009 is beyond"):
        open_assets(folder)


def test_a_link_out_of_the_folder_is_not_followed(single, tmp_path):
    folder, path = single
    secret = tmp_path / "secret"
    path.rename(secret)
    os.symlink(secret, path)
    with pytest.raises(CheckpointError, match="a link out of the folder of assets"):
        open_assets(folder)


def test_names_of_tables_are_never_paths(writer, messages, tmp_path):
    entries = entries_of(messages, np.random.default_rng(6), 1)
    writer.multi(tmp_path / "x.assets", "multi", [{"../../etc/passwd": entries}])
    assert list(open_assets(tmp_path / "x").read()) == ["../../etc/passwd"]
    assert [p.name for p in tmp_path.iterdir()] == ["x.assets"]
