"""The layers against their formulas written out."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.models import Mlp, factorization_machine


def pairwise(vectors: np.ndarray) -> np.ndarray:
    """The sum over pairs as it is written in the paper, in float64."""
    vectors = vectors.astype(np.float64)
    total = np.zeros(vectors.shape[0])
    for i, j in itertools.combinations(range(vectors.shape[1]), 2):
        total += np.sum(vectors[:, i] * vectors[:, j], axis=-1)
    return total


@pytest.mark.parametrize("fields", [1, 2, 5])
@pytest.mark.parametrize(("batch", "dim"), [(1, 1), (3, 4)])
def test_factorization_machine_is_the_sum_over_pairs(batch: int, fields: int, dim: int) -> None:
    vectors = np.random.default_rng(batch).normal(size=(batch, fields, dim)).astype(np.float32)
    result = jax.jit(factorization_machine)(jnp.asarray(vectors))
    assert result.shape == (batch,)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, pairwise(vectors), rtol=1e-5, atol=1e-5)


def test_factorization_machines_gradient_is_the_sum_of_the_others() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    gradient = jax.grad(lambda v: jnp.sum(factorization_machine(v)))(jnp.asarray(vectors))
    np.testing.assert_allclose(
        gradient, vectors.sum(axis=1, keepdims=True) - vectors, rtol=1e-5, atol=1e-6
    )


def test_mlp_is_the_stack_of_its_formula() -> None:
    x = jax.random.normal(jax.random.key(1), (5, 3))
    mlp = Mlp(hidden=(4, 2))
    params = jax.jit(mlp.init)(jax.random.key(0), x)["params"]
    h = np.asarray(x)
    for name in ("hidden_0", "hidden_1"):
        h = np.maximum(h @ params[name]["kernel"] + params[name]["bias"], 0)
    expected = (h @ params["out"]["kernel"] + params["out"]["bias"])[:, 0]
    np.testing.assert_allclose(mlp.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [(), (4, 2)])
@pytest.mark.parametrize("widths", [(3, 2), (3, 0), (1, 2, 4)])
def test_an_input_in_parts_is_the_parts_side_by_side(
    hidden: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    parts = [jax.random.normal(jax.random.key(i), (5, width)) for i, width in enumerate(widths)]
    whole = jnp.concatenate(parts, axis=1)
    mlp = Mlp(hidden=hidden)
    variables = jax.jit(mlp.init)(jax.random.key(9), *parts)
    jax.tree.map(
        np.testing.assert_array_equal, variables, jax.jit(mlp.init)(jax.random.key(9), whole)
    )
    found, want = mlp.apply(variables, *parts), mlp.apply(variables, whole)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_parameters_start_as_those_of_flax() -> None:
    class Reference(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.relu(nn.Dense(4, kernel_init=nn.initializers.he_normal(), name="hidden_0")(x))
            return nn.Dense(1, name="out")(x)[:, 0]

    x = jax.random.normal(jax.random.key(1), (5, 3))
    variables = jax.jit(Mlp(hidden=(4,)).init)(jax.random.key(0), x)
    want = jax.jit(Reference().init)(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, want)
    np.testing.assert_array_equal(
        Mlp(hidden=(4,)).apply(variables, x), Reference().apply(variables, x)
    )


def test_mlp_without_hidden_layers_is_linear() -> None:
    x = jnp.ones((2, 3))
    params = jax.jit(Mlp(hidden=()).init)(jax.random.key(0), x)["params"]
    assert set(params) == {"out"}


def test_dropout_acts_in_training_alone_and_by_its_rng() -> None:
    x = jax.random.normal(jax.random.key(1), (8, 3))
    mlp = Mlp(hidden=(64,), dropout=0.5)
    variables = jax.jit(mlp.init)(jax.random.key(0), x)
    apply = jax.jit(mlp.apply, static_argnames="train")
    plain = apply(variables, x)

    def dropped(seed: int) -> jax.Array:
        return apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(plain, jax.jit(Mlp(hidden=(64,)).apply)(variables, x))
    np.testing.assert_array_equal(dropped(1), dropped(1))
    assert not np.array_equal(dropped(1), dropped(2))
    assert not np.array_equal(dropped(1), plain)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_are_those_of_the_input(dtype: jnp.dtype) -> None:
    x = jnp.ones((2, 3), dtype)
    mlp = Mlp(hidden=(4,))
    variables = jax.jit(mlp.init)(jax.random.key(0), x)
    assert mlp.apply(variables, x).dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert factorization_machine(jnp.ones((2, 3, 4), dtype)).dtype == dtype
