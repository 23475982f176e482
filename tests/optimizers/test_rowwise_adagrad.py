"""RowwiseAdagrad against FBGEMM's formula, written out in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.optimizers import Adagrad, RowwiseAdagrad, as_optax


def oracle(value, gradients, rate, start, epsilon):
    """fbgemm_gpu's exact_rowwise_adagrad, without weight decay.

    g_avg_square = sum_d(grad_d ** 2) / D;  sum_square += g_avg_square
    multiplier = learning_rate / (sqrt(sum_square) + eps);  weight -= multiplier * grad
    """
    value = value.astype(np.float64)
    sums = np.full(len(value), float(start))
    for gradient in gradients.astype(np.float64):
        for row in range(len(value)):
            sums[row] += np.dot(gradient[row], gradient[row]) / gradient.shape[1]
            value[row] -= rate / (np.sqrt(sums[row]) + epsilon) * gradient[row]
    return value, sums


@pytest.mark.parametrize("start", [0.0, 0.1])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
@pytest.mark.parametrize("rows", [False, True])
def test_it_is_fbgemms(start, epsilon, rows, gradients):
    data = gradients.dense[:300]
    rule = RowwiseAdagrad(learning_rate=0.05, initial_accumulator_value=start, epsilon=epsilon)
    value, slots = jnp.asarray(gradients.value), rule.init_slots((24, 4))
    for step, gradient in enumerate(data):
        delta, slots = rule.update(jnp.asarray(gradient), value, slots, {}, step, rows=rows)
        value = value + delta
    expected, sums = oracle(gradients.value, data, 0.05, start, epsilon)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slots["accumulator"][:, 0], sums, rtol=1e-5)


def test_a_row_without_gradient_stays_even_from_zero():
    rule = RowwiseAdagrad(initial_accumulator_value=0.0)
    delta, slots = rule.update(
        jnp.zeros((2, 3)), jnp.ones((2, 3)), rule.init_slots((2, 3)), {}, 0, rows=True
    )
    assert not delta.any()
    assert not slots["accumulator"].any()


def test_on_rows_of_one_value_it_is_adagrad():
    # Tables of width 1: the mean over a row is the square itself.
    ours = as_optax(RowwiseAdagrad(learning_rate=0.1, initial_accumulator_value=0.1, epsilon=0.0))
    theirs = as_optax(Adagrad(learning_rate=0.1))
    value = jnp.linspace(-1, 1, 5).reshape(5, 1)
    one, other = ours.init(value), theirs.init(value)
    for _ in range(10):
        a, one = ours.update(jnp.sin(value), one, value)
        b, other = theirs.update(jnp.sin(value), other, value)
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_vectors_have_one_accumulator_and_scalars_their_own():
    state = as_optax(RowwiseAdagrad()).init({"v": jnp.ones(7), "s": jnp.float32(1)})
    assert {k: s.shape for k, s in state.slots["accumulator"].items()} == {"v": (1,), "s": ()}
