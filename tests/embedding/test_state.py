"""The state: its first values, its shardings, and rows in and out by their ids."""

from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from monolith_jax.embedding import (
    Constant,
    FeatureConfig,
    Normal,
    TableConfig,
    Uniform,
    XlaEngine,
)
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import Adam, RowwiseAdagrad


def make(mesh: Mesh | None = None, **options: Any) -> XlaEngine:
    rule = RowwiseAdagrad(learning_rate=0.1)
    tables = [
        TableConfig(
            name="n", vocab_size=5000, dim=10, initializer=Normal(stddev=2.0), optimizer=rule
        ),
        TableConfig(
            name="u", vocab_size=3001, dim=10, initializer=Uniform(scale=3.0), optimizer=rule
        ),
        TableConfig(
            name="c", vocab_size=7, dim=10, initializer=Constant(value=1.5), optimizer=rule
        ),
        TableConfig(name="wide", vocab_size=9, dim=200, optimizer=Adam(learning_rate=0.1)),
    ]
    features = [FeatureConfig(name=table.name, table=table.name) for table in tables]
    return XlaEngine(tables, features, batch_size=16, mesh=mesh, shards=64, **options)


Made = tuple[XlaEngine, Any]


@pytest.fixture(scope="module")
def one() -> Made:
    """An engine on one device, and its first state."""
    engine = make()
    return engine, engine.init(jax.random.key(0))


@pytest.fixture(scope="module")
def eight(mesh: Mesh) -> Made:
    """The same on eight devices."""
    engine = make(mesh)
    return engine, engine.init(jax.random.key(0))


def test_initializers(one: Made) -> None:
    engine, state = one
    normal, uniform = engine.table_rows(state, "n"), engine.table_rows(state, "u")
    assert normal.shape == (5000, 10)
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 2.0) < 0.05
    assert -3.0 <= uniform.min() < -2.99
    assert 2.99 < uniform.max() < 3.0
    assert len(np.unique(normal)) > 49_000  # 50,000 draws, no block drawn twice
    np.testing.assert_array_equal(engine.table_rows(state, "c"), np.full((7, 10), 1.5))
    again = engine.init(jax.random.key(1))
    assert not np.array_equal(normal, engine.table_rows(again, "n"))


def test_padding_is_zero(one: Made) -> None:
    engine, state = one
    stack = engine.stacks[0]
    rows = np.array(state["stacks"][stack.name]["value"]).reshape(-1, stack.layout.width)
    for table, offset in zip(stack.tables, stack.offsets, strict=True):
        rows[stack.layout.physical(np.arange(offset, offset + table.vocab_size)), :10] = 0.0
    assert not rows.any()


def test_values_do_not_depend_on_devices(one: Made, eight: Made) -> None:
    jax.tree.map(np.testing.assert_array_equal, one[1], eight[1])


def test_abstract_state_is_the_state(one: Made, eight: Made) -> None:
    for engine, state in (one, eight):
        abstract = engine.abstract_state()
        assert jax.tree.structure(state) == jax.tree.structure(abstract)
        for array, shape in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
            assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
            assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)
    value = eight[1]["stacks"]["dim10_rowwiseadagrad"]["value"]
    assert {s.data.shape[0] for s in value.addressable_shards} == {value.shape[0] // 8}


@pytest.mark.parametrize("table", ["u", "wide"])
@pytest.mark.parametrize("sharded", [False, True])
def test_rows_go_in_and_come_out(table: str, sharded: bool, one: Made, eight: Made) -> None:
    engine, start = eight if sharded else one
    rng = np.random.default_rng(0)
    rows = rng.normal(size=engine.table_rows(start, table).shape).astype(np.float32)
    slots = {
        name: rng.normal(size=slot.shape).astype(np.float32)
        for name, slot in engine.table_slots(start, table).items()
    }
    state = engine.with_table(start, table, rows, slots)
    np.testing.assert_array_equal(engine.table_rows(state, table), rows)
    np.testing.assert_array_equal(engine.table_rows(state, table, 3, 7), rows[3:7])
    for name, slot in engine.table_slots(state, table).items():
        np.testing.assert_array_equal(slot, slots[name])
    np.testing.assert_array_equal(engine.table_rows(state, "n"), engine.table_rows(start, "n"))
    part = engine.with_table(start, table, rows[2:5], start=2)
    want = engine.table_rows(start, table)
    want[2:5] = rows[2:5]
    np.testing.assert_array_equal(engine.table_rows(part, table), want)
    jax.tree.map(
        lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim) or pytest.fail("moved"),
        state,
        start,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, s: e.table_rows(s, "x"), "no table named 'x': valid choices: c, n, u, wide"),
        (lambda e, s: e.table_rows(s, "c", 0, 8), "rows 0 to 8 of table 'c', which has 7"),
        (lambda e, s: e.with_table(s, "c", np.zeros((2, 3))), r"expected \[n, 10\]"),
        (
            lambda e, s: e.with_table(s, "c", slots={"accumulatr": np.zeros((2, 1))}),
            "no slot 'accumulatr': did you mean accumulator",
        ),
    ],
)
def test_errors_name_what_is_wrong(call: Any, message: str, one: Made) -> None:
    with pytest.raises(ConfigError, match=message):
        call(*one)
