"""DLRM and DCNv2: what they compute, their parameters, and errors that name the feature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.errors import ConfigError
from monolith_jax.models import CrossNet, DCNv2Config, DLRMConfig, pairwise_products

DLRM = DLRMConfig(vectors=("a", "b", "c"), bottom=(8, 4), top=(6,))
DCN = DCNv2Config(vectors=("a", "b", "c"), bottom=(8, 4), top=(6,), layers=2, rank=3)


def embeddings(dtype: jnp.dtype = jnp.float32) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(1), 4)
    dims = zip(("a", "b", "c", "wide"), (4, 4, 4, 5), strict=True)
    return {
        name: jax.random.normal(k, (5, dim), dtype)
        for k, (name, dim) in zip(keys, dims, strict=True)
    }


DENSE = jax.random.normal(jax.random.key(2), (5, 3))


def tower(params: dict, x: np.ndarray) -> np.ndarray:
    for i in range(len(params)):
        layer = params[f"layer_{i}"]
        x = np.maximum(x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0.0)
    return x


def out(params: dict, x: np.ndarray) -> np.ndarray:
    return (tower(params["top"], x) @ np.asarray(params["out"]["kernel"]))[:, 0]


def test_dlrm_is_its_formula() -> None:
    module = DLRM.instantiate()
    params = module.init(jax.random.key(0), embeddings(), DENSE)["params"]
    z = [tower(params["bottom"], np.asarray(DENSE)), *map(np.asarray, embeddings().values())][:4]
    pairs = [np.sum(z[i] * z[j], axis=1) for i in range(4) for j in range(i)]
    expected = out(params, np.concatenate([z[0], np.stack(pairs, axis=1)], axis=1))
    found = module.apply({"params": params}, embeddings(), DENSE)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 3])
def test_dcn_is_its_formula(rank: int) -> None:
    module = DCN.replace(rank=rank).instantiate()
    params = module.init(jax.random.key(0), embeddings(), DENSE)["params"]
    cross = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1, params["cross"])
    z = [tower(params["bottom"], np.asarray(DENSE)), *map(np.asarray, embeddings().values())][:4]
    first = x = np.concatenate(z, axis=1)
    for i in range(2):
        y = x @ cross[f"down_{i}"]["kernel"] if rank else x
        x = first * (y @ cross[f"up_{i}"]["kernel"] + cross[f"up_{i}"]["bias"]) + x
    found = module.apply({"params": params | {"cross": cross}}, embeddings(), DENSE)
    np.testing.assert_allclose(found, out(params, x), rtol=1e-4, atol=1e-4)


def test_parameters_at_mlperf_size() -> None:
    """The published count of the dense part, 15.5 M, and of DLRM's."""
    names = tuple(f"C{i}" for i in range(26))
    features = {name: jax.ShapeDtypeStruct((1, 128), jnp.float32) for name in names}
    dense = jax.ShapeDtypeStruct((1, 13), jnp.float32)

    def count(module: object) -> int:
        shapes = jax.eval_shape(module.init, jax.random.key(0), features, dense)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    bottom = 13 * 512 + 512 + 512 * 256 + 256 + 256 * 128 + 128
    rest = 1024 * 1024 + 1024 + 1024 * 512 + 512 + 512 * 256 + 256 + 257
    n = 27 * 128
    cross = 3 * (2 * n * 512 + n)
    assert count(DCNv2Config(vectors=names).instantiate()) == (
        bottom + cross + n * 1024 + 1024 + rest
    )
    pairs = 27 * 26 // 2
    assert count(DLRMConfig(vectors=names).instantiate()) == (
        bottom + (128 + pairs) * 1024 + 1024 + rest
    )


def test_pairs_have_each_product_once() -> None:
    vectors = jax.random.normal(jax.random.key(0), (2, 5, 3))
    full = np.einsum("bid,bjd->bij", vectors, vectors)
    rows, columns = np.tril_indices(5, -1)
    np.testing.assert_allclose(pairwise_products(vectors), full[:, rows, columns], rtol=1e-5)


def test_cross_layers_with_zero_weights_change_nothing() -> None:
    x = jnp.arange(6.0).reshape(2, 3)
    cross = CrossNet(layers=3)
    zeros = jax.tree.map(jnp.zeros_like, cross.init(jax.random.key(0), x))
    np.testing.assert_array_equal(cross.apply(zeros, x), x)


@pytest.mark.parametrize("config", [DLRM, DCN])
def test_gradients_reach_everything(config: DLRMConfig | DCNv2Config) -> None:
    module = config.instantiate()
    variables = module.init(jax.random.key(0), embeddings(), DENSE)

    def loss(variables: dict, vectors: dict) -> jax.Array:
        return jnp.sum(module.apply(variables, vectors, DENSE) ** 2)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, embeddings())
    assert not np.any(gradients[1].pop("wide"))
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()
        assert np.any(leaf)


@pytest.mark.parametrize("config", [DLRM, DCN])
def test_bfloat16_embeddings_give_bfloat16_logits(config: DLRMConfig | DCNv2Config) -> None:
    module = config.instantiate()
    variables = module.init(jax.random.key(0), embeddings(), DENSE)
    assert module.apply(variables, embeddings(jnp.bfloat16), DENSE).dtype == jnp.bfloat16


@pytest.mark.parametrize("config", [DLRM, DCN])
def test_features_that_do_not_fit_are_named(config: DLRMConfig | DCNv2Config) -> None:
    for vectors, message in ((("a", "bb"), "feature 'bb'"), (("a", "wide"), "'wide'")):
        module = config.replace(vectors=vectors).instantiate()
        with pytest.raises(ConfigError, match=message):
            module.init(jax.random.key(0), embeddings(), DENSE)
    with pytest.raises(ConfigError, match="needs dense columns"):
        config.instantiate().init(jax.random.key(0), embeddings(), jnp.zeros((5, 0)))


@pytest.mark.parametrize("config", [DLRM, DCN])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": ()}, "must not be empty"),
        ({"bottom": ()}, "must not be empty"),
        ({"top": (4, 0)}, r"top must hold widths of at least 1, got \(4, 0\)"),
    ],
)
def test_configs_that_make_no_sense_are_refused(
    config: DLRMConfig | DCNv2Config, changes: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config.replace(**changes)


def test_negative_rank_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank must be at least 0, got -1"):
        DCN.replace(rank=-1)
