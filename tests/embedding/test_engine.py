"""The engine against a plain dense reference, against itself on eight devices and by lines."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding import Constant, FeatureConfig, TableConfig, XlaEngine
from monolith_jax.optimizers import Adam, Momentum, RowwiseAdagrad, Sgd

STEPS = 4


def run(engine: XlaEngine, state: Any, step: Any, batches: list[Any]) -> tuple[Any, list[float]]:
    """Returns a copy of `state` after a step on each batch, and the losses."""
    state = jax.device_put(jax.tree.map(np.array, state), engine.state_sharding())
    one, losses = step(engine), []
    for batch in batches:
        lookups = engine.prepare(batch)
        lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
        state, loss = one(state, lookups, batch["item"].astype(np.float32) / 1000)
        losses.append(float(loss))
    return state, losses


def contents(engine: XlaEngine, state: Any, prefix: str) -> dict[str, np.ndarray]:
    """Every table of a prefix, its slots, and the scalars of its rule."""
    found: dict[str, np.ndarray] = {}
    for stack in engine.stacks:
        for table in stack.tables:
            if table.name.rpartition("_")[0] == prefix:
                found[table.name] = engine.table_rows(state, table.name)
                for name, slot in engine.table_slots(state, table.name).items():
                    found[f"{table.name}/{name}"] = slot
                for name, scalar in state["stacks"][stack.name]["scalars"].items():
                    found[f"{stack.name}/{name}"] = np.asarray(scalar)
    return found


@pytest.fixture(scope="module")
def ran(rules: Any, tables: Any, features: Any, batches: Any, step: Any, mesh: Any) -> Any:
    """All rules' tables, trained on one device and on eight: (engines, start, ends, losses)."""
    engines = [
        XlaEngine(tables(rules), features(rules), batch_size=64, shards=16, mesh=m)
        for m in (None, mesh)
    ]
    start = engines[0].init(jax.random.key(3))
    ends, losses = zip(*(run(e, start, step, batches(STEPS)) for e in engines), strict=True)
    return engines, start, ends, losses


def test_equals_a_dense_gradient_reference(
    rule_name: str, ran: Any, rules: Any, tables: Any, features: Any, batches: Any
) -> None:
    (engine, _), start, (end, _), _ = ran
    rule = {rule_name: rules[rule_name]}
    want = reference(engine, start, tables(rule), features(rule), batches(STEPS))
    got = contents(engine, end, rule_name)
    for key, array in want.items():
        np.testing.assert_allclose(got[key], array, rtol=2e-5, atol=2e-6, err_msg=key)


def test_eight_devices_equal_one(rule_name: str, ran: Any) -> None:
    (one, eight), _, (end, sharded), (losses, sharded_losses) = ran
    np.testing.assert_allclose(losses, sharded_losses, rtol=1e-6)
    got, want = contents(eight, sharded, rule_name), contents(one, end, rule_name)
    assert got.keys() == want.keys()
    for key, array in want.items():
        scale = max(1.0, np.abs(array).max())
        np.testing.assert_allclose(got[key], array, rtol=0, atol=1e-6 * scale, err_msg=key)


def test_the_state_stays_where_it_was(ran: Any) -> None:
    engines, _, ends, _ = ran
    for engine, end in zip(engines, ends, strict=True):
        for array, shape in zip(
            jax.tree.leaves(end), jax.tree.leaves(engine.abstract_state()), strict=True
        ):
            assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
            assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)
    assert int(ends[0]["step"]) == STEPS


@pytest.mark.parametrize("sharded", [False, True])
def test_sums_without_rounding_are_exact_in_any_order(sharded: bool, mesh: Any) -> None:
    table = TableConfig(
        name="t", vocab_size=50, dim=4, optimizer=Sgd(learning_rate=0.5), initializer=Constant()
    )
    feature = FeatureConfig(name="f", table="t", max_length=3)
    engine = XlaEngine([table], [feature], batch_size=64, mesh=mesh if sharded else None, shards=16)
    ids = np.random.default_rng(0).integers(-1, 50, (64, 3))

    @jax.jit
    def step(state: Any, lookups: Any, weight: Any) -> Any:
        rows = engine.gather(state, lookups)
        gradients = jax.grad(lambda r: (engine.combine(r, lookups)["f"] * weight).sum())(rows)
        return engine.update(state, lookups, rows, gradients), gradients

    lookups = engine.prepare({"f": ids})
    lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
    weight = np.arange(64, dtype=np.float32)[:, None]
    state, gradients = step(engine.init(jax.random.key(0)), lookups, weight)
    sums = np.zeros((50, 4), np.float32)
    for example, row in enumerate(ids):
        np.add.at(sums, row[row >= 0], example)
    np.testing.assert_array_equal(engine.table_rows(state, "t"), -0.5 * sums)
    # The gradient that a step may clip by its norm: each id once, duplicates summed.
    (gradient,) = gradients.values()
    np.testing.assert_array_equal(np.square(gradient).sum(), np.square(sums).sum())


EXACT = {
    "sgd": Sgd(learning_rate=0.5, exact=True),
    "momentum": Momentum(learning_rate=0.1, momentum=0.9, exact=True),
    "adam": Adam(learning_rate=0.05, exact=True),
    "rowwise": RowwiseAdagrad(learning_rate=0.5),
}


@pytest.fixture(scope="module")
def by_form(tables: Any, features: Any, batches: Any, step: Any, mesh: Any) -> Any:
    """Trained by rows and by whole lines, on one device and on eight: {(form, sharded): tables}."""
    found, start = {}, None
    for form in ("rows", "lines"):
        for sharded in (False, True):
            engine = XlaEngine(
                tables(EXACT),
                features(EXACT),
                batch_size=64,
                shards=8,
                mesh=mesh if sharded else None,
                form=form,
            )
            start = engine.init(jax.random.key(3)) if start is None else start
            found[form, sharded] = engine, run(engine, start, step, batches(STEPS))[0]
    return found


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sharded", [False, True])
def test_whole_lines_hold_the_same_rows(name: str, sharded: bool, by_form: Any) -> None:
    rows, lines = (contents(*by_form[form, sharded], name) for form in ("rows", "lines"))
    for key, array in rows.items():
        if EXACT[name].exact and name != "rowwise":
            np.testing.assert_array_equal(lines[key], array, err_msg=key)
        else:  # other products are contracted, and a row's mean is summed in another order
            np.testing.assert_allclose(lines[key], array, rtol=0, atol=1e-6, err_msg=key)


def reference(
    engine: XlaEngine, start: Any, tables: Any, features: Any, batches: list[Any]
) -> dict[str, Any]:
    """Tables as plain arrays, ids as counts, dense gradients, the rule on touched rows."""
    values = {t.name: jnp.asarray(engine.table_rows(start, t.name)) for t in tables}
    slots = {t.name: t.optimizer.init_slots((t.vocab_size, t.dim)) for t in tables}
    scalars = {t.name: {k: np.float32(v) for k, v in t.optimizer.scalars.items()} for t in tables}

    def loss(values: Any, target: Any, counts: Any) -> Any:
        total = 0.0
        for i, feature in enumerate(features):
            n = jnp.maximum(counts[feature.name].sum(1), 1.0)
            scale = {"sum": n * 0 + 1, "mean": n, "sqrtn": jnp.sqrt(n)}[feature.combiner]
            vector = counts[feature.name] @ values[feature.table] / scale[:, None]
            total += ((i + 1.0) * (vector - target[:, None]) ** 2).sum()
        return total / target.shape[0]

    @jax.jit
    def one(values: Any, slots: Any, scalars: Any, step: Any, target: Any, counts: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            gradients = jax.grad(loss)(values, target, counts)
        values, slots, scalars = dict(values), dict(slots), dict(scalars)
        for table in tables:
            name, rule = table.name, table.optimizer
            used = sum(counts[f.name].sum(0) for f in features if f.table == name)
            touched = (used > 0)[:, None] | rule.touches_all_rows
            delta, new = rule.update(
                gradients[name], values[name], slots[name], scalars[name], step, rows=True
            )
            values[name] = jnp.where(touched, values[name] + delta, values[name])
            slots[name] = {k: jnp.where(touched, new[k], old) for k, old in slots[name].items()}
            scalars[name] = rule.advance(scalars[name])
        return values, slots, scalars

    for step, batch in enumerate(batches):
        target = batch["item"].astype(np.float32) / 1000
        counts = {f.name: id_counts(f, tables, batch) for f in features}
        values, slots, scalars = one(values, slots, scalars, step, target, counts)
    slot_values = {f"{n}/{k}": np.asarray(v) for n, s in slots.items() for k, v in s.items()}
    return {n: np.asarray(v) for n, v in values.items()} | slot_values


def id_counts(feature: Any, tables: Any, batch: Any) -> np.ndarray:
    """How often each example has each id, [batch, vocab]; negative ids are none."""
    column = batch[feature.source]
    (size,) = (t.vocab_size for t in tables if t.name == feature.table)
    found = np.zeros((len(batch["item"]), size), np.float32)
    for example in range(len(found)):
        ids = column.row(example) if hasattr(column, "row") else np.atleast_1d(column[example])
        for one in ids:
            found[example, one] += one >= 0
    return found
