"""The engine against TF1's optimizers on sparse gradients with duplicate ids."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform, XlaEngine
from monolith_jax.optimizers import Adagrad, Adam, Momentum, RMSProp

VOCAB, DIM, BATCH, STEPS = 300, 8, 64, 30

CASES = {
    "adagrad": (Adagrad(learning_rate=0.1), lambda t: t.AdagradOptimizer(0.1)),
    "momentum": (
        Momentum(learning_rate=0.05, momentum=0.9),
        lambda t: t.MomentumOptimizer(0.05, 0.9),
    ),
    "rmsprop": (RMSProp(learning_rate=0.01), lambda t: t.RMSPropOptimizer(0.01)),
    "adam": (Adam(learning_rate=0.01), lambda t: t.AdamOptimizer(0.01)),
}


def data() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [
        (rng.zipf(1.2, BATCH) % VOCAB, rng.normal(size=(BATCH, DIM)).astype(np.float32))
        for _ in range(STEPS)
    ]


def ours(rule: Any, mesh: Any) -> tuple[np.ndarray, np.ndarray]:
    kind = Uniform(scale=0.5)
    table = TableConfig(name="t", vocab_size=VOCAB, dim=DIM, optimizer=rule, initializer=kind)
    features = [FeatureConfig(name="f", table="t")]
    engine = XlaEngine([table], features, batch_size=BATCH, mesh=mesh, shards=16)

    def step(state: Any, lookups: Any, target: Any) -> Any:
        rows = engine.gather(state, lookups)
        gradients = jax.grad(
            lambda rows: jnp.square(engine.combine(rows, lookups)["f"] - target).sum()
        )(rows)
        return engine.update(state, lookups, rows, gradients)

    compiled = jax.jit(step, donate_argnums=0)
    state = engine.init(jax.random.key(0))
    start = engine.table_rows(state, "t").copy()
    for ids, target in data():
        lookups = engine.prepare({"f": ids})
        lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
        state = compiled(state, lookups, target)
    return start, engine.table_rows(state, "t")


def theirs(tf: Any, make: Any, start: np.ndarray) -> np.ndarray:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        table = v1.get_variable("t", initializer=start, use_resource=True)
        ids = v1.placeholder(tf.int64, [BATCH])
        target = v1.placeholder(tf.float32, [BATCH, DIM])
        train = make(v1.train).minimize(tf.reduce_sum(tf.square(tf.gather(table, ids) - target)))
        session.run(v1.global_variables_initializer())
        for batch, wanted in data():
            session.run(train, {ids: batch, target: wanted})
        return session.run(table)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_equals_tf1(name: str, sharded: bool, tf: Any, mesh: Any) -> None:
    rule, make = CASES[name]
    start, got = ours(rule, mesh if sharded else None)
    want = theirs(tf, make, start)
    assert np.abs(want - start).max() > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())
