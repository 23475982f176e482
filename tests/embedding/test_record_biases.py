"""Biases in the records of the rows that the same ids look up: the same numbers as apart."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform, XlaEngine, _forms
from monolith_jax.embedding import _record_form as record_form
from monolith_jax.embedding._cpu import updating
from monolith_jax.optimizers import Adagrad, LazyAdam, Momentum, RowwiseAdagrad

SIZES = (700, 61)
RULES: dict[int, Any] = {
    12: (LazyAdam(learning_rate=0.05), Adagrad(learning_rate=0.5)),
    32: (RowwiseAdagrad(learning_rate=0.5), Momentum(learning_rate=0.1, momentum=0.9)),
}
"""By dim: the vectors' rule and the biases'."""


def configs(sharding: Any = "mod") -> tuple[list[TableConfig], list[FeatureConfig]]:
    """For each dim two tables of vectors and two of biases, a sequence among the features."""
    tables, features = [], []
    for dim, (rule, bias_rule) in RULES.items():
        for i, size in enumerate(SIZES):
            for name, width, one in ((f"v{dim}_{i}", dim, rule), (f"b{dim}_{i}", 1, bias_rule)):
                tables.append(
                    TableConfig(
                        name=name,
                        vocab_size=size,
                        dim=width,
                        optimizer=one,
                        initializer=Uniform(scale=0.5),
                        sharding=sharding,
                    )
                )
                features.append(
                    FeatureConfig(
                        name=name,
                        column=f"c{dim}_{i}",
                        weights="w" if i else "",
                        table=name,
                        combiner="mean" if width > 1 else "sum",
                        max_length=3,
                        sequence=width > 1 and i == 0,
                    )
                )
    return tables, features


def make(form: Any, mesh: Any, sharding: Any = "mod", **options: Any) -> XlaEngine:
    tables, features = configs(sharding)
    return XlaEngine(tables, features, batch_size=16, mesh=mesh, shards=8, form=form, **options)


def batches(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return [
        {
            f"c{dim}_{i}": rng.integers(-1, size, (16, 3))
            for dim in RULES
            for i, size in enumerate(SIZES)
        }
        | {"w": rng.integers(0, 3, (16, 3)).astype(np.float32)}
        for _ in range(count)
    ]


def stepped(engine: XlaEngine) -> Any:
    """The jitted step: (state, lookups) -> (state, squares of the gradients by table)."""

    def one(state: Any, lookups: Any) -> Any:
        rows = engine.gather(state, lookups)

        def loss(rows: Any) -> Any:
            found = engine.combine(rows, lookups)
            kept = [x for name, x in found.items() if not name.endswith("/mask")]
            return sum((((i + 1.0) * x - 0.5) ** 2).sum() for i, x in enumerate(kept))

        gradients = jax.grad(loss)(rows)
        squares = engine.gradient_squares(lookups, gradients)
        return engine.update(state, lookups, rows, gradients), squares

    return jax.jit(one, donate_argnums=0)


def trained(engine: XlaEngine, saved: Any) -> tuple[dict[str, np.ndarray], Any]:
    """Returns every table, slot and gradient's square after two steps, and the saved state."""
    where = jax.tree.map(lambda x: x.sharding, engine.abstract_saved())
    state, step = engine.from_saved(jax.device_put(saved, where)), stepped(engine)
    for columns in batches(2):
        lookups = engine.prepare(columns)
        state, squares = step(state, jax.device_put(lookups, engine.lookups_sharding(lookups)))
    found = {f"{name} squares": np.asarray(square) for name, square in squares.items()}
    for stack in engine.stacks:
        for table in stack.tables:
            found[table.name] = engine.table_rows(state, table.name)
            for name, slot in engine.table_slots(state, table.name).items():
                found[f"{table.name}/{name}"] = slot
    return found, jax.tree.map(np.asarray, engine.to_saved(state))


@pytest.mark.parametrize("sharding", ["mod", "div"])
@pytest.mark.parametrize("sharded", [False, True], ids=["one", "eight"])
def test_biases_in_records_hold_the_same_numbers(
    sharded: bool, sharding: Any, mesh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: training, the gradients' norms, and a checkpoint of either form."""
    monkeypatch.setattr(record_form, "CHUNK", 256)  # several rounds, and a last one not full
    monkeypatch.setattr(updating, "target_of", lambda *_: None)  # XLA's updates in both
    where = mesh if sharded else None
    rows, records = make("rows", where, sharding), make("records", where, sharding)
    assert {r.name: len(r.biases) for r in records.records.values()} == {
        records.stacks[0].name: 1,
        records.stacks[2].name: 1,
    }
    start = jax.tree.map(np.asarray, rows.init(jax.random.key(1)))
    jax.tree.map(
        np.testing.assert_array_equal, records.to_saved(records.init(jax.random.key(1))), start
    )
    want, ours = trained(rows, start)
    got, theirs = trained(records, start)
    assert got.keys() == want.keys()
    for name, array in want.items():
        if name.endswith(" squares"):  # sums over rows, in the order that the rows lie in
            np.testing.assert_allclose(got[name], array, rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], array, err_msg=name)
    assert jax.tree.structure(theirs) == jax.tree.structure(ours)
    again, _ = trained(rows, theirs)
    and_again, _ = trained(records, ours)
    for name, array in again.items():
        if not name.endswith(" squares"):
            np.testing.assert_array_equal(and_again[name], array, err_msg=name)


def test_biases_need_no_lookups_of_their_own() -> None:
    engine = make("records", None)
    lookups = engine.prepare(batches(1)[0])
    assert lookups.keys() == engine.records.keys()
    assert len(engine.stacks) == 2 * len(lookups)


def test_a_bias_is_replaced_beside_its_vector(mesh: Any) -> None:
    engine = make("records", mesh)
    state = engine.init(jax.random.key(0))
    new = np.arange(5, dtype=np.float32)[:, None]
    changed = engine.with_table(state, "b12_0", new, {"accumulator": 10.0 + new}, start=130)
    assert engine.table_rows(changed, "b12_0", 129, 136)[1:6].tolist() == new.tolist()
    assert (
        engine.table_slots(changed, "b12_0", 130, 135)["accumulator"].tolist()
        == (10.0 + new).tolist()
    )
    for table in ("v12_0", "v12_1", "b12_1", "b32_0"):
        np.testing.assert_array_equal(
            engine.table_rows(changed, table), engine.table_rows(state, table)
        )


@pytest.mark.parametrize(
    "change",
    [
        {"column": "other"},
        {"max_length": 2},
        {"out_of_range": "zero"},
        {"weights": "w"},
        {"negative": "first"},
    ],
)
def test_biases_that_are_looked_up_otherwise_stay_apart(change: dict[str, Any]) -> None:
    tables, features = configs()
    features = [dataclasses.replace(f, **change) if f.name == "b12_0" else f for f in features]
    engine = XlaEngine(tables, features, batch_size=16, form="records")
    biases = {r.lead.layout.dim: len(r.biases) for r in engine.records.values()}
    assert biases == {12: 0, 32: 1, 1: 0}


def test_biases_of_other_tables_stay_apart() -> None:
    tables, features = configs()
    for change in ({"vocab_size": 62}, {"sharding": "div"}):
        other = [dataclasses.replace(t, **change) if t.name == "b12_1" else t for t in tables]
        engine = XlaEngine(other, features, batch_size=16, form="records")
        assert not any(r.biases for r in engine.records.values() if r.lead.layout.dim == 12)


def test_biases_stay_apart_where_the_ragged_exchange_is_asked_for(mesh: Any) -> None:
    engine = make("records", mesh, exchange="ragged")
    assert not any(record.biases for record in engine.records.values())
    assert engine.ragged == {stack.name for stack in engine.stacks}


def test_rows_with_biases_take_buckets(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where "auto" would have them travel raggedly: in lines that a bias would fill by half."""
    monkeypatch.setattr(_forms, "is_ragged", lambda *_: True)
    tables, features = configs()
    alone = TableConfig(name="alone", vocab_size=61, dim=32, optimizer=Adagrad())
    feature = FeatureConfig(name="alone", table="alone")
    engine = XlaEngine(
        [*tables, alone], [*features, feature], batch_size=16, mesh=mesh, form="records"
    )
    assert engine.ragged == {"dim32_adagrad"}
