"""Rows and slots side by side in records: the same numbers, and checkpoints of either form."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.embedding import _reshard as resharding
from monolith_jax.embedding._records import Record
from monolith_jax.embedding._stacks import build_stacks
from monolith_jax.optimizers import Adam, LazyAdam, RowwiseAdagrad

STEPS = 3


@pytest.fixture(scope="module")
def engines(rules: Any, tables: Any, features: Any, mesh: Any) -> dict[Any, XlaEngine]:
    """By (form, sharded): all rules' tables, of dims that fill their part of a line or do not."""
    return {
        (form, sharded): XlaEngine(
            tables(rules),
            features(rules),
            batch_size=64,
            shards=16,
            mesh=mesh if sharded else None,
            form=form,
        )
        for form in ("rows", "records")
        for sharded in (False, True)
    }


@pytest.fixture(scope="module")
def start(engines: Any) -> Any:
    """A first state as checkpoints have it, on the host."""
    return jax.tree.map(np.asarray, engines["rows", False].init(jax.random.key(3)))


def restored(engine: XlaEngine, saved: Any) -> Any:
    """The state of a checkpoint that holds `saved`."""
    where = jax.tree.map(lambda x: x.sharding, engine.abstract_saved())
    return engine.from_saved(jax.device_put(saved, where))


@pytest.fixture(scope="module")
def ends(engines: Any, start: Any, batches: Any, step: Any) -> dict[Any, Any]:
    """By (form, sharded): the state after some steps from one start."""
    found = {}
    for key, engine in engines.items():
        state, one = restored(engine, start), step(engine)
        for batch in batches(STEPS):
            lookups = engine.prepare(batch)
            lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
            state, _ = one(state, lookups, batch["item"].astype(np.float32) / 1000)
        found[key] = state
    return found


def contents(engine: XlaEngine, state: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Every table of a prefix, its slots, and the scalars of its rule."""
    found: dict[str, np.ndarray] = {}
    for stack in engine.stacks:
        for table in stack.tables:
            if prefix in ("", table.name.rpartition("_")[0]):
                found[table.name] = engine.table_rows(state, table.name)
                for name, slot in engine.table_slots(state, table.name).items():
                    found[f"{table.name}/{name}"] = slot
                for name, scalar in state["stacks"][stack.name]["scalars"].items():
                    found[f"{stack.name}/{name}"] = np.asarray(scalar)
    return found


def equal(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for key, array in want.items():
        np.testing.assert_array_equal(got[key], array, err_msg=key)


@pytest.mark.parametrize("sharded", [False, True], ids=["one", "eight"])
def test_records_hold_the_same_rows(
    rule_name: str, sharded: bool, engines: Any, ends: Any, start: Any
) -> None:
    """After three steps, to the last bit: rows, slots of either kind and scalars."""
    got, want = (
        contents(engines[form, sharded], ends[form, sharded], rule_name)
        for form in ("records", "rows")
    )
    first = engines["rows", False]
    before = contents(first, restored(first, start), rule_name)
    assert any(not np.array_equal(want[key], before[key]) for key in want)
    if rule_name == "rowwise_adagrad":  # not exact: XLA contracts products and sums as it likes
        for key, array in want.items():
            np.testing.assert_allclose(got[key], array, rtol=0, atol=1e-6, err_msg=key)
    else:
        equal(got, want)


@pytest.mark.parametrize("sharded", [False, True], ids=["one", "eight"])
@pytest.mark.parametrize("form", ["rows", "records"])
def test_a_checkpoint_of_one_form_is_read_in_the_other(
    form: str, sharded: bool, engines: Any, ends: Any
) -> None:
    """On one device or on eight, whichever it was written on."""
    source, target = engines[form, sharded], engines["records" if form == "rows" else "rows", True]
    saved = jax.tree.map(np.asarray, source.to_saved(ends[form, sharded]))
    for array, shape in zip(
        jax.tree.leaves(saved), jax.tree.leaves(target.abstract_saved()), strict=True
    ):
        assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
    state = restored(target, saved)
    equal(contents(target, state), contents(source, ends[form, sharded]))
    # And back: records keep no padding of lines, which becomes what it was at first.
    back = source.to_saved(restored(source, jax.tree.map(np.asarray, target.to_saved(state))))
    equal(contents(source, restored(source, back)), contents(target, state))


def test_a_first_state_is_the_same_in_either_form(engines: Any, start: Any) -> None:
    for sharded in (False, True):
        engine = engines["records", sharded]
        state = engine.init(jax.random.key(3))
        jax.tree.map(np.testing.assert_array_equal, engine.to_saved(state), start)
        jax.tree.map(np.testing.assert_array_equal, restored(engine, start), state)
        for array, shape in zip(
            jax.tree.leaves(state), jax.tree.leaves(engine.abstract_state()), strict=True
        ):
            assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
            assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)


def test_a_checkpoint_of_another_sharding_becomes_records(
    tables: Any,
    features: Any,
    engines: Any,
    ends: Any,
    mesh: Any,
    rules: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resharding, "CHUNK", 16)  # of lines of every table at once
    cut = [dataclasses.replace(table, sharding="div") for table in tables(rules)]
    engine = XlaEngine(cut, features(rules), batch_size=64, shards=16, mesh=mesh, form="records")
    then = engine.with_sharding({})
    saved = then.to_saved(ends["records", True])
    state = engine.from_saved(engine.resharded(saved, then))
    got = contents(engine, state)
    want = contents(engines["records", True], ends["records", True])
    for key in got.keys() & want.keys():
        np.testing.assert_array_equal(got[key], want[key], err_msg=key)
    assert len(got.keys() & want.keys()) > 3 * len(rules)


@pytest.mark.parametrize("sharded", [False, True], ids=["one", "eight"])
def test_rows_go_in_and_come_out(sharded: bool, engines: Any, start: Any) -> None:
    engine = engines["records", sharded]
    state = restored(engine, start)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 5)).astype(np.float32)
    more = rng.normal(size=(5, 1)).astype(np.float32)
    table = "rowwise_adagrad_bias"
    changed = engine.with_table(state, table, rows, {"accumulator": more}, start=7)
    want = contents(engine, state)
    want[table][7:12], want[f"{table}/accumulator"][7:12] = rows, more
    equal(contents(engine, changed), want)
    untouched = changed["stacks"]["dim16_ftrl"]["records"]
    assert untouched is state["stacks"]["dim16_ftrl"]["records"]


def test_what_no_record_holds_is_reached_by_lines() -> None:
    tables = [
        TableConfig(name="all", vocab_size=9, dim=32, optimizer=Adam()),
        TableConfig(name="half", vocab_size=9, dim=32, dtype="bfloat16"),
        TableConfig(name="held", vocab_size=9, dim=32, optimizer=RowwiseAdagrad()),
    ]
    features = [FeatureConfig(name=t.name, table=t.name) for t in tables]
    engine = XlaEngine(tables, features, batch_size=8, form="records")
    assert {name: reach.form for name, reach in engine.reach.items()} == {
        "dim32_adam": "lines",
        "dim32_adagrad_bfloat16": "lines",
        "dim32_rowwiseadagrad": "records",
    }


@pytest.mark.parametrize(
    ("dim", "lanes", "width", "shape"),
    [
        (1, 3, 4, (4, 128)),
        (30, 90, 128, (100, 128)),
        (43, 129, 256, (100, 256)),
        (128, 384, 384, (100, 384)),
    ],
)
def test_where_a_record_lies(dim: int, lanes: int, width: int, shape: tuple[int, int]) -> None:
    """Narrow ones share lines; all are as many as there is room for rows, in lines of their own."""
    table = TableConfig(name="t", vocab_size=99, dim=dim, optimizer=LazyAdam())
    record = Record(build_stacks([table], [], 1 if dim < 128 else 4))
    assert (record.lanes, record.layout.width, record.shape) == (lanes, width, shape)
    filled = np.arange(2 * lanes, dtype=np.float32).reshape(2, lanes)
    np.testing.assert_array_equal(record.join(record.split(filled)), filled)
