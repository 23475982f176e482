"""The engine against a plain dense reference, and against itself on eight devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding import XlaEngine
from monolith_jax.optimizers import (
    Adagrad,
    Adam,
    ExponentialDecay,
    Ftrl,
    LazyAdam,
    Momentum,
    RMSProp,
    RowwiseAdagrad,
    Sgd,
)

RULES = {
    "sgd": Sgd(learning_rate=0.5),
    "adagrad": Adagrad(learning_rate=0.5),
    "adagrad_schedule": Adagrad(
        learning_rate=ExponentialDecay(initial=0.5, decay_steps=2, decay_rate=0.5)
    ),
    "momentum": Momentum(learning_rate=0.1, momentum=0.9),
    "nesterov": Momentum(learning_rate=0.1, momentum=0.9, use_nesterov=True),
    "rmsprop": RMSProp(learning_rate=0.05, momentum=0.5),
    "rmsprop_centered": RMSProp(learning_rate=0.05, momentum=0.5, centered=True),
    "adam": Adam(learning_rate=0.05),
    "lazy_adam": LazyAdam(learning_rate=0.05),
    "ftrl": Ftrl(learning_rate=0.5, l1_regularization_strength=0.01),
    "rowwise_adagrad": RowwiseAdagrad(learning_rate=0.5),
}
STEPS = 4


def run(engine: XlaEngine, step: Any, batches: list[Any]) -> tuple[Any, list[float]]:
    state, one, losses = engine.init(jax.random.key(3)), step(engine), []
    for batch in batches:
        lookups = engine.prepare(batch)
        lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
        state, loss, _ = one(state, lookups, batch["item"].astype(np.float32) / 1000)
        losses.append(float(loss))
    return state, losses


def contents(engine: XlaEngine, state: Any, tables: Any) -> dict[str, np.ndarray]:
    """Every table and slot by its rows, and every scalar."""
    found = {}
    for table in tables:
        found[table.name] = engine.table_rows(state, table.name)
        for name, slot in engine.table_slots(state, table.name).items():
            found[f"{table.name}/{name}"] = slot
    for stack, arrays in state["stacks"].items():
        found |= {f"{stack}/{name}": np.asarray(s) for name, s in arrays["scalars"].items()}
    return found


def reference(engine: XlaEngine, tables: Any, features: Any, batches: list[Any]) -> dict[str, Any]:
    """Tables as plain arrays, ids as masks, gradients of whole tables, the rule on touched rows."""
    start = engine.init(jax.random.key(3))
    values = {t.name: jnp.asarray(engine.table_rows(start, t.name)) for t in tables}
    slots = {t.name: t.optimizer.init_slots((t.vocab_size, t.dim)) for t in tables}
    scalars = {t.name: {k: np.float32(v) for k, v in t.optimizer.scalars.items()} for t in tables}
    for step, batch in enumerate(batches):
        target = jnp.asarray(batch["item"].astype(np.float32) / 1000)
        counts = {f.name: jnp.asarray(id_counts(f, tables, batch)) for f in features}

        def loss(values: Any, target: Any = target, counts: Any = counts) -> Any:
            total = 0.0
            for i, feature in enumerate(features):
                n = jnp.maximum(counts[feature.name].sum(1), 1.0)
                scale = {"sum": n * 0 + 1, "mean": n, "sqrtn": jnp.sqrt(n)}[feature.combiner]
                vector = counts[feature.name] @ values[feature.table] / scale[:, None]
                total += ((i + 1.0) * (vector - target[:, None]) ** 2).sum()
            return total / target.shape[0]

        with jax.default_matmul_precision("highest"):
            gradients = jax.grad(loss)(values)
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
    slot_values = {f"{n}/{k}": np.asarray(v) for n, s in slots.items() for k, v in s.items()}
    return {n: np.asarray(v) for n, v in values.items()} | slot_values


def id_counts(feature: Any, tables: Any, batch: Any) -> np.ndarray:
    """How often each example has each id, [batch, vocab]; negative ids are none."""
    column = batch[feature.column or feature.name]
    (size,) = (t.vocab_size for t in tables if t.name == feature.table)
    found = np.zeros((len(batch["item"]), size), np.float32)
    for example in range(len(found)):
        ids = column.row(example) if hasattr(column, "row") else np.atleast_1d(column[example])
        for one in ids:
            found[example, one] += one >= 0
    return found


@pytest.mark.parametrize("name", RULES)
def test_equals_a_dense_gradient_reference(
    name: str, tables: Any, features: Any, batches: Any, step: Any
) -> None:
    mine, data = tables(RULES[name]), batches(STEPS)
    engine = XlaEngine(mine, features, batch_size=64, shards=8)
    state, losses = run(engine, step, data)
    assert losses[-1] < losses[0]
    got, want = contents(engine, state, mine), reference(engine, mine, features, data)
    for key, array in want.items():
        np.testing.assert_allclose(got[key], array, rtol=2e-5, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", RULES)
def test_eight_devices_equal_one(
    name: str, tables: Any, features: Any, batches: Any, step: Any, mesh: Any
) -> None:
    mine, data = tables(RULES[name]), batches(STEPS)
    one = XlaEngine(mine, features, batch_size=64, shards=16)
    eight = XlaEngine(mine, features, batch_size=64, shards=16, mesh=mesh)
    (state, losses), (sharded, sharded_losses) = run(one, step, data), run(eight, step, data)
    np.testing.assert_allclose(losses, sharded_losses, rtol=1e-6)
    got, want = contents(eight, sharded, mine), contents(one, state, mine)
    assert got.keys() == want.keys()
    for key, array in want.items():
        scale = max(1.0, np.abs(array).max())
        np.testing.assert_allclose(got[key], array, rtol=0, atol=1e-6 * scale, err_msg=key)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(sharded), strict=True):
        assert a.shape == b.shape
        assert len(b.sharding.device_set) == 8


EXACT = {
    "sgd": Sgd(learning_rate=0.5, exact=True),
    "momentum": Momentum(learning_rate=0.1, momentum=0.9, exact=True),
    "adam": Adam(learning_rate=0.05, exact=True),
    "rowwise_adagrad": RowwiseAdagrad(learning_rate=0.5),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sharded", [False, True])
def test_whole_lines_hold_the_same_rows(
    name: str, sharded: bool, tables: Any, features: Any, batches: Any, step: Any, mesh: Any
) -> None:
    mine, data = tables(EXACT[name]), batches(STEPS)
    found = []
    for form in ("rows", "lines"):
        engine = XlaEngine(
            mine, features, batch_size=64, shards=8, mesh=mesh if sharded else None, form=form
        )
        found.append(contents(engine, run(engine, step, data)[0], mine))
    for key, array in found[0].items():
        if EXACT[name].exact:
            np.testing.assert_array_equal(found[1][key], array, err_msg=key)
        else:  # XLA contracts other products and sums in the other program
            np.testing.assert_allclose(found[1][key], array, rtol=0, atol=1e-6, err_msg=key)
