"""`mod` and `div`: where rows live, that it changes no result, and from one to the other."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.embedding import _reshard as resharding
from monolith_jax.embedding._layout import Layout
from monolith_jax.optimizers import Adam, Momentum, RowwiseAdagrad

STEPS = 3
RULES = {
    "momentum": Momentum(learning_rate=0.1, momentum=0.9, exact=True),
    "adam": Adam(learning_rate=0.05, exact=True),
    "rowwise": RowwiseAdagrad(learning_rate=0.5),
}


@given(
    st.sampled_from([1, 3, 8]),
    st.lists(st.integers(1, 9), max_size=4),
    st.integers(1, 700),
    st.sampled_from([5, 32, 200]),
)
@settings(max_examples=60)
def test_every_line_has_one_place(shards: int, blocks: list[int], rows: int, dim: int) -> None:
    layout = Layout(rows, dim, shards, tuple(blocks))
    lines = np.arange(layout.shape[0])
    places = layout.physical_line(lines)
    np.testing.assert_array_equal(np.sort(places), lines)
    np.testing.assert_array_equal(layout.logical_line(places), lines)
    one = int(lines[-1])
    assert layout.logical_line(layout.physical_line(one)) == one


@pytest.mark.parametrize("blocks", [(), (1, 4, 2)])
def test_traced_lines_have_the_same_places(blocks: tuple[int, ...]) -> None:
    layout = Layout(700, 32, 8, blocks)
    lines = np.arange(layout.shape[0], dtype=np.uint32)
    places = layout.physical_line(lines)
    np.testing.assert_array_equal(jax.jit(layout.physical_line)(lines), places)
    np.testing.assert_array_equal(jax.jit(layout.logical_line)(places), lines)


def with_sharding(tables: Any, sharding: str) -> list[TableConfig]:
    return [dataclasses.replace(table, sharding=sharding) for table in tables]


def test_div_gives_a_device_a_range_of_each_tables_ids(mesh: Any) -> None:
    tables = [
        TableConfig(name="a", vocab_size=8000, dim=32, sharding="div"),
        TableConfig(name="b", vocab_size=4100, dim=32, sharding="div"),
    ]
    features = [FeatureConfig(name=t.name, table=t.name, max_length=9) for t in tables]
    engine = XlaEngine(tables, features, batch_size=512, mesh=mesh, shards=16)
    (stack,) = engine.stacks
    assert stack.name == "dim32_adagrad_div"
    ids = {t.name: np.resize(np.arange(t.vocab_size), (512, 9)) for t in tables}
    (lookups,) = engine.prepare(ids).values()
    block = stack.layout.physical_rows // 8
    for table in tables:
        config, offset = stack.table(table.name)
        places = stack.layout.physical(offset + np.arange(config.vocab_size))
        owners = places // block
        assert (np.diff(owners) >= 0).all()
        assert owners[0] == 0
        # The kernel in the input thread and the layout agree on where rows live.
        for owner, rows in enumerate(lookups.rows.reshape(8, -1)):
            held = rows[rows < block] + owner * block
            asked = places[np.unique(ids[table.name])]
            assert np.isin(asked[asked // block == owner], held).all()
    assert np.bincount(stack.layout.physical(np.arange(8000)) // block).tolist() == [1000] * 8


@pytest.fixture(scope="module")
def trained(tables: Any, features: Any, batches: Any, step: Any, mesh: Any) -> Any:
    """Both shardings, on one device and on eight: {(sharding, sharded): (engine, state)}."""
    found: dict[Any, Any] = {}
    rng = np.random.default_rng(0)
    start = {t.name: rng.normal(size=(t.vocab_size, t.dim)) for t in tables(RULES)}
    for sharding in ("mod", "div"):
        for sharded in (False, True):
            engine = XlaEngine(
                with_sharding(tables(RULES), sharding),
                features(RULES),
                batch_size=64,
                shards=16,
                mesh=mesh if sharded else None,
            )
            state = engine.init(jax.random.key(3))
            for name, rows in start.items():
                state = engine.with_table(state, name, rows)
            one = step(engine)
            for batch in batches(STEPS):
                lookups = engine.prepare(batch)
                lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
                state, _ = one(state, lookups, batch["item"].astype(np.float32) / 1000)
            found[sharding, sharded] = engine, state
    return found


def contents(engine: XlaEngine, state: Any) -> dict[str, np.ndarray]:
    found = {}
    for stack in engine.stacks:
        for table in stack.tables:
            found[table.name] = engine.table_rows(state, table.name)
            slots = engine.table_slots(state, table.name)
            found |= {f"{table.name}/{name}": slot for name, slot in slots.items()}
    return found


@pytest.mark.parametrize("sharded", [False, True], ids=["one", "eight"])
def test_div_equals_mod(sharded: bool, trained: Any) -> None:
    """The gradients of a row are summed in the same order whoever owns it: to the last bit."""
    (mod, left), (div, right) = trained["mod", sharded], trained["div", sharded]
    want, got = contents(mod, left), contents(div, right)
    assert want.keys() == got.keys()
    for key, array in want.items():
        if key.startswith("rowwise"):  # not exact: XLA contracts products and sums as it likes
            np.testing.assert_allclose(got[key], array, rtol=0, atol=1e-6, err_msg=key)
        else:
            np.testing.assert_array_equal(got[key], array, err_msg=key)


@pytest.mark.parametrize("sharded", [False, True], ids=["one", "eight"])
@pytest.mark.parametrize(("source", "target"), [("mod", "div"), ("div", "mod")])
def test_a_state_moves_to_the_other_sharding(
    source: str, target: str, sharded: bool, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resharding, "CHUNK", 16)  # several rounds and a last one that is not full
    given_engine, state = trained[source, sharded]
    wanted, _ = trained[target, sharded]
    names = {t.name: source for stack in wanted.stacks for t in stack.tables}
    old = wanted.with_sharding(names)
    assert [stack.name for stack in old.stacks] == [s.name for s in given_engine.stacks]
    moved = wanted.resharded(state, old)
    for got, shape in zip(
        jax.tree.leaves(moved), jax.tree.leaves(wanted.abstract_state()), strict=True
    ):
        assert (got.shape, got.dtype) == (shape.shape, shape.dtype)
        assert got.sharding.is_equivalent_to(shape.sharding, got.ndim)
    before, after = contents(given_engine, state), contents(wanted, moved)
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array, err_msg=key)
    for one, other in zip(old.stacks, wanted.stacks, strict=True):
        jax.tree.map(
            np.testing.assert_array_equal,
            state["stacks"][one.name]["scalars"],
            moved["stacks"][other.name]["scalars"],
        )
    # And back again: no padding has been disturbed.
    back = old.resharded(moved, wanted)
    jax.tree.map(np.testing.assert_array_equal, back, state)
