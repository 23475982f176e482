"""`monolith_jax.core.model_registry`: the original's names, and a model from name to gradient."""

import inspect
import json
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax import config, registry
from monolith_jax.config import Config, field
from monolith_jax.core import model_registry
from monolith_jax.core.base_model_params import SingleTaskModelParams


class Regression(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(1)(nn.relu(nn.Dense(self.width)(x)))[:, 0]


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(Config):
    width: int = field(4, doc="Hidden units.")

    def instantiate(self) -> Regression:
        return Regression(self.width)


@model_registry.RegisterSingleTaskModel
class RegressionModel(SingleTaskModelParams):
    """A regression."""

    def task(self) -> RegressionConfig:
        return RegressionConfig(width=8)


KEY = f"{__name__}.RegressionModel"


def test_the_names_are_the_registrys() -> None:
    names = ["GetAllRegisteredClasses", "GetClass", "GetParams", "RegisterSingleTaskModel"]
    assert model_registry.__all__ == names
    for name in names:
        assert getattr(model_registry, name) is getattr(registry, name)


def test_the_arguments_are_the_originals() -> None:
    def arguments(function: Any) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert arguments(model_registry.RegisterSingleTaskModel) == ["src_cls"]
    assert arguments(model_registry.GetClass) == ["class_key"]
    assert arguments(model_registry.GetParams) == ["class_key"]
    assert arguments(model_registry.GetAllRegisteredClasses) == []


def test_the_way_of_the_original() -> None:
    assert model_registry.GetAllRegisteredClasses()[KEY] is RegressionModel
    assert model_registry.GetClass(KEY) is RegressionModel
    assert model_registry.GetParams(KEY) == RegressionConfig(width=8)
    with pytest.raises(LookupError):
        model_registry.GetClass("no.such.Model")
    with pytest.raises(ValueError, match="duplicate"):
        model_registry.RegisterSingleTaskModel(RegressionModel)
    with pytest.raises(TypeError):
        model_registry.RegisterSingleTaskModel(object)  # type: ignore[type-var]


def through_json(params: Config) -> Any:
    return config.from_dict(json.loads(json.dumps(config.to_dict(params))))


def assert_same_run(module: nn.Module, again: nn.Module, *inputs: Any) -> None:
    """Takes both modules through init, jit and grad: the same parameters, outputs, gradients."""

    def run(module: nn.Module) -> tuple[Any, ...]:
        variables = jax.jit(module.init)(jax.random.key(0), *inputs)

        def loss(variables: Any) -> tuple[jax.Array, jax.Array]:
            outputs = module.apply(variables, *inputs)
            return jnp.sum(jnp.square(outputs)), outputs

        gradients, outputs = jax.jit(jax.grad(loss, has_aux=True))(variables)
        return variables, outputs, gradients

    first, second = run(module), run(again)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    variables, outputs, gradients = first
    np.testing.assert_allclose(outputs, module.apply(variables, *inputs), rtol=1e-5, atol=1e-6)
    leaves = jax.tree.leaves(gradients)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.any(leaf != 0) for leaf in leaves)


def test_a_config_gives_a_module_that_inits_jits_and_differentiates_and_survives_json() -> None:
    params = model_registry.GetParams(KEY)
    again = through_json(params)
    assert again == params
    x = jax.random.normal(jax.random.key(1), (4, 3))
    assert_same_run(params.instantiate(), again.instantiate(), x)


@pytest.mark.parametrize("key", ["movielens.DeepFM", "movielens.MatrixFactorization"])
def test_the_bundled_models_do_too(key: str) -> None:
    params = model_registry.GetParams(key)
    again = through_json(params)
    assert again == params
    dims = {table.name: table.dim for table in params.tables}
    keys = jax.random.split(jax.random.key(1), len(params.features))
    embeddings = {
        feature.name: jax.random.normal(key, (4, dims[feature.table]))
        for feature, key in zip(params.features, keys, strict=True)
    }
    dense = jnp.zeros((4, len(params.dense)))
    assert_same_run(params.instantiate(), again.instantiate(), embeddings, dense)
