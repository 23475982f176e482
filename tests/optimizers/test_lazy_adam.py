"""LazyAdam has no TF1 class to be held against: its rows that are touched are Adam's."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from monolith_jax.optimizers import Adam, LazyAdam, as_optax

KWARGS = {"learning_rate": 0.05, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}


def test_where_every_row_is_touched_it_is_tfs_adam(tf1_states, gradients):
    # The gradients name all rows: then TF's Adam has no other row to move.
    steps, rows = 200, np.arange(24, dtype=np.int32)
    data = dataclasses.replace(
        gradients,
        dense=gradients.dense[:steps],
        sparse=gradients.dense[:steps],
        rows=np.broadcast_to(rows, (steps, 24)),
    )
    theirs = tf1_states({"adam": ("adam", KWARGS, 1.0, ["m", "v"])}, data, sparse=True)["adam"]
    rule = LazyAdam(**KWARGS)
    value, scalars = jnp.asarray(data.value), rule.scalars
    slots = rule.init_slots(value.shape)
    for step, gradient in enumerate(data.sparse):
        delta, slots = rule.update(jnp.asarray(gradient), value, slots, scalars, step, rows=True)
        value, scalars = value + delta, rule.advance(scalars)
    np.testing.assert_array_equal(value, theirs["value"])
    np.testing.assert_array_equal(slots["m"], theirs["m"])
    np.testing.assert_array_equal(slots["v"], theirs["v"])


def test_rows_that_are_skipped_stay_as_they_are():
    # A row touched at steps 0 and 3 has decayed twice, but the powers count four steps.
    rule = LazyAdam(**KWARGS)
    scalars, slots, value = rule.scalars, rule.init_slots((1, 2)), jnp.ones((1, 2))
    m, v, w = np.zeros(2), np.zeros(2), np.ones(2)
    for step in range(4):
        if step in (0, 3):
            gradient = np.asarray([[1.0, -2.0]]) * (step + 1)
            delta, slots = rule.update(
                jnp.asarray(gradient, jnp.float32), value, slots, scalars, step, rows=True
            )
            value = value + delta
            m = 0.8 * m + 0.2 * gradient[0]
            v = 0.99 * v + 0.01 * gradient[0] ** 2
            rate = 0.05 * np.sqrt(1 - 0.99 ** (step + 1)) / (1 - 0.8 ** (step + 1))
            w = w - rate * m / (np.sqrt(v) + 1e-6)
        scalars = rule.advance(scalars)
    np.testing.assert_allclose(value[0], w, rtol=1e-5)
    np.testing.assert_allclose(slots["m"][0], m, rtol=1e-5)


def test_dense_it_is_adam_to_the_bit():
    value = jnp.linspace(-1, 1, 12).reshape(3, 4)
    lazy, plain = as_optax(LazyAdam(**KWARGS)), as_optax(Adam(**KWARGS))
    one, other = lazy.init(value), plain.init(value)
    for _ in range(5):
        ours, one = lazy.update(jnp.cos(value), one, value)
        theirs, other = plain.update(jnp.cos(value), other, value)
        np.testing.assert_array_equal(ours, theirs)
