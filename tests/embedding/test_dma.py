"""Parts of lines moved by DMA: the kernels alone, and tables that are reached through them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform, XlaEngine
from monolith_jax.embedding import _dma as dma
from monolith_jax.embedding._cpu import updating
from monolith_jax.optimizers import Adam, LazyAdam, RowwiseAdagrad, Sgd

LINES = 24
RULES: dict[int, Any] = {
    1: LazyAdam(learning_rate=0.05),
    3: RowwiseAdagrad(learning_rate=0.5),
    8: Adam(learning_rate=0.05),
    30: Sgd(learning_rate=0.5),
}
"""By dim: every way in which a rule treats rows and slots."""
SIZES = (700, 61)


@pytest.mark.parametrize("unit", [8, 32, 64])
def test_units_are_read_and_written_where_they_lie(
    unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the simulated TPU, which finds copies that race; several turns of the grid."""
    monkeypatch.setattr(dma, "BLOCK", 16)
    simulated: Any = pltpu.InterpretParams(detect_races=True)
    rng = np.random.default_rng(unit)
    tables = [rng.normal(size=(LINES, 128)).astype(np.float32) for _ in range(2)]
    units = LINES * 128 // unit
    there = np.sort(rng.choice(units, 37, replace=False))
    index = jnp.asarray(np.append(there, units + np.arange(9)), jnp.int32)

    read = dma.read_units([jnp.asarray(t) for t in tables], index, unit, interpret=simulated)
    for table, found in zip(tables, read, strict=True):
        assert found.shape == (46, unit)
        np.testing.assert_array_equal(found[:37], table.reshape(-1, unit)[there])

    new = [rng.normal(size=(46, unit)).astype(np.float32) for _ in tables]
    written = dma.write_units(
        [jnp.asarray(t) for t in tables],
        index,
        [jnp.asarray(n) for n in new],
        interpret=simulated,
    )
    for table, rows, found in zip(tables, new, written, strict=True):
        want = table.reshape(-1, unit).copy()
        want[there] = rows[:37]
        np.testing.assert_array_equal(np.asarray(found).reshape(-1, unit), want)


def make(form: Any, mesh: Any) -> XlaEngine:
    """For each dim two tables of one stack; ids repeat."""
    tables, features = [], []
    for dim, rule in RULES.items():
        for i, size in enumerate(SIZES):
            name, kind = f"{dim}_{i}", Uniform(scale=0.5)
            tables.append(
                TableConfig(name=name, vocab_size=size, dim=dim, optimizer=rule, initializer=kind)
            )
            features.append(
                FeatureConfig(name=name, column=f"c{i}", table=name, combiner="mean", max_length=3)
            )
    return XlaEngine(tables, features, batch_size=16, mesh=mesh, shards=8, form=form)


def train(engine: XlaEngine, start: Any, step: Any) -> dict[str, np.ndarray]:
    """Returns every table and slot after two steps."""
    rng = np.random.default_rng(5)
    state, one = jax.device_put(start, engine.state_sharding()), step(engine)
    for _ in range(2):
        columns = {f"c{i}": rng.integers(-1, size, (16, 3)) for i, size in enumerate(SIZES)}
        lookups = engine.prepare(columns)
        lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
        state, _ = one(state, lookups, columns["c0"][:, 0].astype(np.float32) / 700)
    found = {}
    for stack in engine.stacks:
        for table in stack.tables:
            found[table.name] = engine.table_rows(state, table.name)
            for name, slot in engine.table_slots(state, table.name).items():
                found[f"{table.name}/{name}"] = slot
    return found


def test_words_hold_the_same_rows(step: Any, mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a word and more, and narrower ones, of which several share each; every kind of rule.

    On eight devices; the same sums in the same order: to the last bit.
    """
    monkeypatch.setattr(updating, "target_of", lambda *_: None)  # XLA's updates in both
    words = make("words", mesh)
    reach = {stack.layout.dim: words.reach[stack.name] for stack in words.stacks}
    assert {dim: (r.form, r.unit, r.rows) for dim, r in reach.items()} == {
        1: ("words", 8, 8),
        3: ("words", 8, 2),
        8: ("words", 8, 1),
        30: ("words", 32, 1),
    }
    rows = make("rows", mesh)
    start = jax.tree.map(np.asarray, rows.init(jax.random.key(1)))
    want = train(rows, start, step)
    for name, array in train(words, start, step).items():
        np.testing.assert_array_equal(array, want[name], err_msg=name)


def test_what_no_word_holds_alone_is_reached_by_lines() -> None:
    tables = [
        TableConfig(name="wide", vocab_size=9, dim=128),
        TableConfig(name="half", vocab_size=9, dim=32, dtype="bfloat16"),
    ]
    features = [FeatureConfig(name=t.name, table=t.name) for t in tables]
    engine = XlaEngine(tables, features, batch_size=8, form="words")
    assert {reach.form for reach in engine.reach.values()} == {"lines"}
