"""DeepFM: its sum, shapes, gradients, dropout, and errors that name the feature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.errors import ConfigError
from monolith_jax.models import DeepFM, DeepFMConfig, Mlp, factorization_machine

CONFIG = DeepFMConfig(
    vectors=("user", "item", "genre"), biases=("user_bias", "item_bias"), hidden=(8, 4)
)


def make_embeddings(dtype: jnp.dtype = jnp.float32) -> dict[str, jax.Array]:
    dims = {"user": 4, "item": 4, "genre": 4, "user_bias": 1, "item_bias": 1, "unused": 7}
    keys = jax.random.split(jax.random.key(1), len(dims))
    return {
        name: jax.random.normal(key, (5, dim), dtype)
        for key, (name, dim) in zip(keys, dims.items(), strict=True)
    }


def make_dense(width: int) -> jax.Array:
    return jax.random.normal(jax.random.key(2), (5, width))


@pytest.mark.parametrize("width", [0, 3])
def test_the_logit_is_the_sum_of_its_terms(width: int) -> None:
    embeddings, dense = make_embeddings(), make_dense(width)
    params = jax.jit(CONFIG.instantiate().init)(jax.random.key(0), embeddings, dense)["params"]
    params = {**params, "bias": jnp.float32(0.5)}
    logits = jax.jit(CONFIG.instantiate().apply)({"params": params}, embeddings, dense)
    assert logits.shape == (5,)
    vectors = [embeddings[name] for name in CONFIG.vectors]
    deep = Mlp((8, 4)).apply({"params": params["deep"]}, jnp.concatenate([*vectors, dense], axis=1))
    first = 0.5 + embeddings["user_bias"][:, 0] + embeddings["item_bias"][:, 0]
    expected = first + factorization_machine(jnp.stack(vectors, axis=1)) + deep
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_parameters_have_the_documented_shapes_and_start() -> None:
    init = jax.jit(CONFIG.instantiate().init)
    params = init(jax.random.key(0), make_embeddings(), make_dense(2))["params"]
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert shapes == {
        "bias": (),
        "deep": {
            "hidden_0": {"kernel": (14, 8), "bias": (8,)},
            "hidden_1": {"kernel": (8, 4), "bias": (4,)},
            "out": {"kernel": (4, 1), "bias": (1,)},
        },
    }
    assert params["bias"] == 0


def test_gradients_reach_every_parameter_and_every_embedding_used() -> None:
    embeddings, dense, module = make_embeddings(), make_dense(2), CONFIG.instantiate()
    variables = jax.jit(module.init)(jax.random.key(0), embeddings, dense)

    def loss(variables: dict, embeddings: dict) -> jax.Array:
        return jnp.sum(jnp.square(module.apply(variables, embeddings, dense)))

    dense_gradients, row_gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, embeddings)
    for leaf in jax.tree.leaves((dense_gradients, row_gradients)):
        assert np.isfinite(leaf).all()
    unused = row_gradients.pop("unused")
    assert not np.any(unused)
    for name, gradient in row_gradients.items():
        assert np.any(gradient), name


def test_dropout_in_training_alone() -> None:
    module = CONFIG.replace(dropout=0.5).instantiate()
    embeddings, dense = make_embeddings(), make_dense(0)
    variables = jax.jit(module.init)(jax.random.key(0), embeddings, dense)
    rngs = {"dropout": jax.random.key(3)}
    apply = jax.jit(module.apply, static_argnames="train")
    trained = apply(variables, embeddings, dense, train=True, rngs=rngs)
    tested = apply(variables, embeddings, dense, train=False)
    assert not np.array_equal(trained, tested)
    plain = jax.jit(CONFIG.instantiate().apply)(variables, embeddings, dense)
    np.testing.assert_array_equal(tested, plain)


def test_bfloat16_vectors_give_bfloat16_logits_whatever_the_rest_is() -> None:
    embeddings, dense = make_embeddings(dtype=jnp.bfloat16), make_dense(2)
    embeddings["item_bias"] = embeddings["item_bias"].astype(jnp.float32)
    module = CONFIG.instantiate()
    variables = jax.jit(module.init)(jax.random.key(0), embeddings, dense)
    apply = jax.jit(module.apply)
    logits = apply(variables, embeddings, dense)
    assert logits.dtype == jnp.bfloat16
    wide = apply(
        variables,
        {name: array.astype(jnp.float32) for name, array in embeddings.items()},
        dense,
    )
    np.testing.assert_allclose(logits.astype(jnp.float32), wide, rtol=0.1, atol=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": ("user", "itm")}, "DeepFM.vectors names feature 'itm'.*did you mean item"),
        ({"biases": ("usr_bias",)}, "DeepFM.biases names feature 'usr_bias'.*user_bias"),
        ({"vectors": ("user", "unused")}, "equal dims, got user 4, unused 7 .at 'unused'."),
        ({"biases": ("user_bias", "item")}, "must have dim 1, got user_bias 1, item 4"),
    ],
)
def test_features_that_do_not_fit_are_named(changes: dict, message: str) -> None:
    module = CONFIG.replace(**changes).instantiate()
    with pytest.raises(ConfigError, match=message):
        module.init(jax.random.key(0), make_embeddings(), make_dense(0))


def test_an_embedding_of_another_rank_is_named() -> None:
    embeddings = {**make_embeddings(), "item": jnp.ones((5, 2, 4))}
    with pytest.raises(ConfigError, match=r"'item' has shape \(5, 2, 4\), expected \[batch, dim\]"):
        CONFIG.instantiate().init(jax.random.key(0), embeddings, make_dense(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": ()}, "vectors is empty"),
        ({"hidden": (8, 0)}, r"hidden must hold widths of at least 1, got \(8, 0\)"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be"),
        ({"dropout": float("nan")}, "dropout must be"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CONFIG.replace(**changes)


def test_the_config_gives_the_module_with_its_values() -> None:
    assert CONFIG.replace(dropout=0.25).instantiate() == DeepFM(
        vectors=("user", "item", "genre"),
        biases=("user_bias", "item_bias"),
        hidden=(8, 4),
        dropout=0.25,
    )
