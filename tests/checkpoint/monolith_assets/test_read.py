"""Tables that Google's protobuf and TensorFlow's writer made, and real ones, read back."""

from pathlib import Path

import numpy as np
import pytest

from monolith_jax.checkpoint import monolith_assets
from monolith_jax.checkpoint.monolith_assets import _rows, open_assets
from monolith_jax.errors import CheckpointError

# floats with a slot a number, floats of fixed length, single floats, integers
OPTIMIZERS = {
    "adagrad": ("norm",),
    "sgd": (),
    "ftrl": ("zero", "norm"),
    "dynamic_wd_adagrad": ("norm", "last_update_step"),
    "adadelta": ("accum", "accum_update"),
    "adam": ("m", "v", "beta1_power", "beta2_power"),
    "amsgrad": ("m", "v", "vhat", "beta1_power", "beta2_power"),
    "momentum": ("n",),
    "rmsprop": ("n",),
    "rmspropv2": ("n",),
    "group_ftrl": ("zero", "norm"),
    "batch_softmax": ("global_step",),
    "group_adagrad": ("grad_square_sum",),
}
SINGLE = {"beta1_power", "beta2_power", "grad_square_sum"}
INTS = {"last_update_step", "global_step"}


def make(messages, rng, count, slices, time=True):
    """Makes entries; `slices` is [(optimizer, dim)]."""
    entries = []
    for _ in range(count):
        entry = messages.EntryDump(id=int(rng.integers(-(2**63), 2**63 - 1)))
        entry.num.extend(rng.normal(size=sum(dim for _, dim in slices)).astype(np.float32))
        for name, dim in slices:
            dump = getattr(entry.opt.dump.add(), name)
            dump.SetInParent()
            for field in OPTIMIZERS[name]:
                if field in INTS:
                    setattr(dump, field, int(rng.integers(-5, 2**40)))
                elif field in SINGLE:
                    setattr(dump, field, np.float32(rng.normal()))
                else:
                    getattr(dump, field).extend(rng.normal(size=dim).astype(np.float32))
        if time:
            entry.last_update_ts_sec = int(rng.integers(0, 2**31))
        entries.append(entry)
    return entries


def check(table, entries, slices):
    """Compares every number with protobuf's, bit for bit."""
    assert table.ids.dtype == np.int64
    assert table.ids.tolist() == [e.id for e in entries]
    assert table.embeddings.dtype == np.float32
    np.testing.assert_array_equal(table.embeddings, [list(e.num) for e in entries])
    assert table.last_update_ts_sec.tolist() == [e.last_update_ts_sec for e in entries]
    assert [of.optimizer for of in table.slices] == [name for name, _ in slices]
    for i, (name, _) in enumerate(slices):
        assert tuple(table.slices[i].slots) == OPTIMIZERS[name]
        for field, values in table.slices[i].slots.items():
            want = [getattr(getattr(e.opt.dump[i], name), field) for e in entries]
            assert values.dtype == (np.int64 if field in INTS else np.float32)
            np.testing.assert_array_equal(values, [w if np.isscalar(w) else list(w) for w in want])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer(writer, messages, tmp_path, name, compiled):
    rng = np.random.default_rng(1)
    entries = make(messages, rng, 9, [(name, 5)])
    writer.single(tmp_path, "table", [entries[:4], [], entries[4:]])
    table = open_assets(tmp_path).read(compiled=compiled)["table"]
    check(table, entries, [(name, 5)])
    assert table.slices[0].dim == 5


def test_all_optimizers_side_by_side(writer, messages, tmp_path):
    slices = [(name, dim) for dim, name in enumerate(OPTIMIZERS, 1)]
    entries = make(messages, np.random.default_rng(2), 50, slices)
    writer.single(tmp_path, "table", [entries])
    assets = open_assets(tmp_path)
    for compiled in (True, False):
        check(assets.read(compiled=compiled)["table"], entries, slices)
    dims = [of.dim for of in assets.read()["table"].slices]
    assert dims == [1, None, 3, None, 5, 6, 7, 8, 9, 10, None, None, None]


def test_the_rest_of_the_embedding_is_the_only_unknown_slice(writer, messages, tmp_path):
    slices = [("ftrl", 1), ("sgd", 16)]
    writer.single(tmp_path, "table", [make(messages, np.random.default_rng(3), 2, slices)])
    assets = open_assets(tmp_path)
    assert [of.dim for of in assets.read()["table"].slices] == [1, 16]
    assert assets.report().tables[0].optimizers == "ftrl[1] sgd[16]"


@pytest.mark.parametrize("compiled", [True, False])
def test_multi_tables_of_two_servers(writer, messages, tmp_path, compiled):
    rng = np.random.default_rng(4)
    forms = {"user": [("adam", 3)], "item/id": [("adagrad", 2), ("sgd", 2)], "none": [("sgd", 1)]}
    want = {name: [] for name in forms}
    folder = tmp_path / "model.ckpt-7.assets"
    for server in range(2):
        shards = []
        for _ in range(3):
            tables = {n: make(messages, rng, 0 if n == "none" else 20, f) for n, f in forms.items()}
            shards.append(tables)
            for name, entries in tables.items():
                want[name] += entries
        writer.multi(folder, f"MonolithMultiHashTable_{server}", shards)
    assets = open_assets(tmp_path / "model.ckpt-7")
    tables = assets.read(compiled=compiled)
    for name in ("user", "item/id"):
        check(tables[name], want[name], forms[name])
        check(assets.read([name], compiled=compiled)[name], want[name], forms[name])
    assert tables["none"].embeddings.shape == (0, 0)
    assert [(r.name, r.entries, r.dim, r.files) for r in assets.report().tables] == [
        ("user", 120, 3, 6),
        ("item/id", 120, 4, 6),
        ("none", 0, None, 6),
    ]


@pytest.mark.parametrize("compiled", [True, False])
def test_many_snappy_blocks(writer, messages, tmp_path, compiled):
    rng = np.random.default_rng(5)
    slices = [("adagrad", 64)]
    entries = make(messages, rng, 1500, slices)
    for entry in entries[::2]:  # something to compress
        entry.num[:] = [0.5] * 64
    writer.multi(tmp_path, "multi", [{"a": entries[:900], "b": entries[900:]}])
    assert (tmp_path / "multi-00000-of-00001").stat().st_size > 1 << 19
    tables = open_assets(tmp_path).read(compiled=compiled)
    check(tables["a"], entries[:900], slices)
    check(tables["b"], entries[900:], slices)


def test_parts_are_the_whole(writer, messages, tmp_path, monkeypatch):
    monkeypatch.setattr(_rows, "ROWS", 7)
    slices = [("ftrl", 3)]
    entries = make(messages, np.random.default_rng(6), 40, slices)
    writer.multi(tmp_path, "multi", [{"a": [], "b": entries[:25]}, {"b": entries[25:], "c": []}])
    parts = list(open_assets(tmp_path).batches("b"))
    assert [part.ids.size for part in parts] == [7, 7, 7, 4, 7, 7, 1]
    at = 0
    for part in parts:
        check(part, entries[at : at + part.ids.size], slices)
        at += part.ids.size


def test_entries_in_other_forms_of_the_same(writer, messages, tmp_path):
    """Packed floats, a field that is not known, another order, no time: all protobuf allows."""
    rng = np.random.default_rng(7)
    entries = make(messages, rng, 6, [("adagrad", 4)])
    data = [entry.SerializeToString() for entry in entries]
    packed = messages.PackedEntry(num=entries[2].num, id=entries[2].id, extra="new")
    packed.opt.dump.add().adagrad.norm.extend(entries[2].opt.dump[0].adagrad.norm)
    entries[2].ClearField("last_update_ts_sec")
    data[2] = packed.SerializeToString()
    del entries[4].num[:]
    data[4] = entries[4].SerializeToString()
    entries[4].num.extend(entries[3].num)
    data[4] += messages.EntryDump(num=entries[3].num).SerializeToString()  # num after the time
    entries[5].ClearField("last_update_ts_sec")
    data[5] = entries[5].SerializeToString()
    writer.records(tmp_path / "t-00000-of-00001", data)
    check(open_assets(tmp_path).read()["t"], entries, [("adagrad", 4)])


def test_single_numbers_that_are_left_out_are_zero(writer, messages, tmp_path):
    entries = make(messages, np.random.default_rng(8), 3, [("adam", 2), ("batch_softmax", 1)])
    entries[1].opt.dump[0].adam.ClearField("beta1_power")
    entries[1].opt.dump[1].batch_softmax.ClearField("global_step")
    writer.single(tmp_path, "t", [entries])
    for compiled in (True, False):
        table = open_assets(tmp_path).read(compiled=compiled)["t"]
        check(table, entries, [("adam", 2), ("batch_softmax", 1)])
    assert table.slices[0].slots["beta1_power"][1] == 0


def test_an_optimizer_that_leaves_nothing(writer, messages, tmp_path):
    """A moving average's dump is empty, but there."""
    entries = make(messages, np.random.default_rng(9), 3, [("sgd", 2)])
    for entry in entries:
        del entry.opt.dump[:]
    entries[1].ClearField("opt")
    writer.single(tmp_path, "t", [entries])
    for compiled in (True, False):
        check(open_assets(tmp_path).read(compiled=compiled)["t"], entries, [])


def test_floats_keep_their_bits(writer, messages, tmp_path):
    entry = messages.EntryDump(id=-1, num=[np.inf, -0.0, 1e-45, -np.inf])
    writer.single(tmp_path, "t", [[entry, entry]])
    bits = open_assets(tmp_path).read()["t"].embeddings.view(np.uint32)
    assert bits.tolist() == [[0x7F800000, 0x80000000, 1, 0xFF800000]] * 2


def test_hash_filters_and_unfinished_files_are_named_and_not_read(writer, messages, tmp_path):
    writer.single(tmp_path, "t", [make(messages, np.random.default_rng(10), 1, [("sgd", 1)])])
    (tmp_path / "hash_filter_0-00000-of-00001").write_bytes(b"not entries")
    (tmp_path / "t-00000-of-00001-tmp-99").write_bytes(b"cut")
    assets = open_assets(tmp_path)
    assert list(assets.tables) == ["t"]
    assert assets.hash_filters == ("hash_filter_0",)
    text = str(assets.report())
    assert "hash_filter_0: a filter of rare ids" in text
    assert "t-00000-of-00001-tmp-99: belongs to no table" in text
    assert assets.report().to_json()["tables"][0]["entries"] == 1


# Written by Monolith itself: monolith/native_training/model_export/testdata/saved_model/ps_0/
# 1622716114/assets/MonolithHashTable_3fc25c64637605aa3983374cc61db982_0-00003-of-00004 of
# github.com/bytedance/monolith (Apache License 2.0): one entry of 16 numbers, updated by sgd.
REAL = """
6100000000000000008f906409140000000000000015234e8c3b15c56de1bd15c6ed833b15076e1ebd15e2d8babc1587
79673d15e900803c1573fbc2bd15646084bd153841d43a156c3890bd158b1241bd152f833dbd150b86eebc154b9c4c3d
156bab033e1a040a0212002000dafd95e8
"""


@pytest.mark.parametrize("compiled", [True, False])
def test_bytes_that_monolith_wrote(messages, tmp_path, compiled):
    data = bytes.fromhex(REAL)
    base = "MonolithHashTable_3fc25c64637605aa3983374cc61db982_0"
    for shard in range(4):
        (tmp_path / f"{base}-{shard:05d}-of-00004").write_bytes(data if shard == 3 else b"")
    table = open_assets(tmp_path).read(compiled=compiled)[base]
    entry = messages.EntryDump.FromString(data[12:-4])
    check(table, [entry], [("sgd", 16)])
    assert (table.ids.tolist(), table.slices[0].dim) == ([20], 16)


def test_a_table_that_is_not_there(writer, messages, tmp_path):
    writer.single(tmp_path, "user", [make(messages, np.random.default_rng(1), 1, [("sgd", 1)])])
    with pytest.raises(CheckpointError, match="no table 'users'; did you mean user"):
        open_assets(tmp_path).read(["users"])


def test_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "model.ckpt-100.assets").mkdir()
    with pytest.raises(CheckpointError, match=r"model.ckpt-10: no folder .*model.ckpt-100.assets"):
        open_assets(tmp_path / "model.ckpt-10")


def test_importing_needs_neither_numba_nor_tensorflow():
    import subprocess
    import sys

    code = (
        "import sys, monolith_jax.checkpoint.monolith_assets\n"
        "assert not {'numba', 'tensorflow', 'google.protobuf', 'gcsfs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
    assert monolith_assets.__all__
