"""Matrix factorization: its sum, its start, its gradients, and errors that name the feature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.errors import ConfigError
from monolith_jax.models import MatrixFactorizationConfig

CONFIG = MatrixFactorizationConfig(mean=3.5)
EMPTY = jnp.zeros((5, 0))


def make_embeddings(**dims: int) -> dict[str, jax.Array]:
    dims = {"user": 4, "item": 4, "user_bias": 1, "item_bias": 1, **dims}
    keys = jax.random.split(jax.random.key(1), len(dims))
    return {
        name: jax.random.normal(key, (5, dim))
        for key, (name, dim) in zip(keys, dims.items(), strict=True)
    }


def test_the_rating_is_the_sum_of_its_terms() -> None:
    embeddings, module = make_embeddings(), CONFIG.instantiate()
    variables = jax.jit(module.init)(jax.random.key(0), embeddings, EMPTY)
    assert variables == {"params": {"mean": jnp.float32(3.5)}}
    ratings = jax.jit(module.apply)(variables, embeddings, EMPTY)
    e = {name: np.asarray(array, np.float64) for name, array in embeddings.items()}
    expected = 3.5 + e["user_bias"][:, 0] + e["item_bias"][:, 0]
    expected = expected + np.sum(e["user"] * e["item"], axis=1)
    assert ratings.shape == (5,)
    np.testing.assert_allclose(ratings, expected, rtol=1e-5, atol=1e-5)


def test_gradients() -> None:
    embeddings, module = make_embeddings(), CONFIG.instantiate()
    variables = jax.jit(module.init)(jax.random.key(0), embeddings, EMPTY)

    def total(variables: dict, embeddings: dict) -> jax.Array:
        return jnp.sum(module.apply(variables, embeddings, EMPTY))

    mean, rows = jax.jit(jax.grad(total, argnums=(0, 1)))(variables, embeddings)
    assert mean["params"]["mean"] == 5
    np.testing.assert_array_equal(rows["user"], embeddings["item"])
    np.testing.assert_array_equal(rows["item"], embeddings["user"])
    np.testing.assert_array_equal(rows["user_bias"], np.ones((5, 1)))


def test_features_can_have_other_names() -> None:
    module = MatrixFactorizationConfig(user="u", item="i", user_bias="a", item_bias="b")
    embeddings = make_embeddings(u=2, i=2, a=1, b=1)
    assert module.instantiate().init(jax.random.key(0), embeddings, EMPTY)


@pytest.mark.parametrize(
    ("config", "dims", "message"),
    [
        (CONFIG.replace(user="usr"), {}, "names feature 'usr'.*did you mean user"),
        (CONFIG, {"item": 3}, "equal dims, got user 4, item 3"),
        (CONFIG, {"item_bias": 2}, "dim 1, got user_bias 1, item_bias 2"),
    ],
)
def test_features_that_do_not_fit_are_named(
    config: MatrixFactorizationConfig, dims: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config.instantiate().init(jax.random.key(0), make_embeddings(**dims), EMPTY)


def test_train_changes_nothing() -> None:
    embeddings, module = make_embeddings(), CONFIG.instantiate()
    variables = jax.jit(module.init)(jax.random.key(0), embeddings, EMPTY)
    np.testing.assert_array_equal(
        module.apply(variables, embeddings, EMPTY, train=True),
        module.apply(variables, embeddings, EMPTY),
    )
