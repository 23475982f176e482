"""Layers that are right pass every check of `layer_test`, in both of Flax's APIs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from monolith_jax.testing import layer_test


class Mlp(nn.Module):
    """Two layers, with dropout between them in training."""

    width: int
    rate: float = 0.5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(self.width)(x))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(2)(x)


class Attention(nn.Module):
    """Self-attention with a causal mask."""

    @nn.compact
    def __call__(self, x):
        mask = nn.make_causal_mask(x[..., 0])
        return nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=4)(x, mask=mask)


class Standardize(nn.Module):
    """A preprocessing layer: `adapt` learns mean and deviation of data into a collection."""

    def setup(self):
        self.mean = self.variable("statistics", "mean", jnp.zeros, ())
        self.deviation = self.variable("statistics", "deviation", jnp.ones, ())

    def adapt(self, data):
        self.mean.value = jnp.mean(data)
        self.deviation.value = jnp.std(data)

    def __call__(self, x):
        return (x - self.mean.value.astype(x.dtype)) / self.deviation.value.astype(x.dtype)


class Bucket(nn.Module):
    """Float in, bucket number out: nothing to differentiate."""

    boundaries: tuple[float, ...]

    def __call__(self, x):
        return jnp.searchsorted(jnp.asarray(self.boundaries, x.dtype), x).astype(jnp.int32)


class Scaled(nn.Module):
    """Takes its weights in the constructor, as some Keras layers do."""

    weights: dict | None = None

    @nn.compact
    def __call__(self, x):
        given = None if self.weights is None else self.weights["params"]["scale"]
        scale = self.param("scale", lambda key: jnp.float32(3) if given is None else given)
        return x * scale.astype(x.dtype)


class NnxBlock(nnx.Module):
    """A block with weights, statistics and random numbers, in NNX."""

    def __init__(self, features, *, rngs):
        self.linear = nnx.Linear(3, features, rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.linear(x)))


def test_dense():
    out = layer_test(
        nn.Dense,
        kwargs={"features": 8},
        input_shape=(None, 3),
        expected_output_shape=(None, 8),
    )
    assert isinstance(out, np.ndarray)
    assert out.shape[1] == 8


def test_embedding_of_integers():
    layer_test(
        nn.Embed,
        kwargs={"num_embeddings": 10, "features": 8},
        input_shape=(None, None),
        input_dtype="int32",
        expected_output_dtype="float32",
        expected_output_shape=(None, None, 8),
    )


def test_batch_norm_in_inference_and_in_training():
    out = layer_test(
        nn.BatchNorm,
        input_shape=(4, 3),
        call_kwargs={"use_running_average": True},
        train_kwargs={"use_running_average": False},
    )
    assert out.shape == (4, 3)


def test_mlp_with_dropout_in_training():
    layer_test(
        Mlp,
        kwargs={"width": 8},
        input_shape=(4, 3),
        expected_output_shape=(4, 2),
        train_kwargs={"train": True},
    )


def test_dropout_at_work_draws_the_same_numbers_in_every_call():
    out = layer_test(
        nn.Dropout, kwargs={"rate": 0.5}, input_shape=(8, 8), call_kwargs={"deterministic": False}
    )
    assert 0 < (out == 0).mean() < 1


@pytest.mark.parametrize(
    ("layer", "kwargs", "shape"),
    [
        (nn.LayerNorm, {}, (2, 6)),
        (nn.Conv, {"features": 2, "kernel_size": (3,)}, (2, 5, 3)),
        (Attention, {}, (2, 3, 4)),
        (lambda: nn.RNN(nn.GRUCell(4)), {}, (2, 3, 4)),
    ],
)
def test_layers_of_flax(layer, kwargs, shape):
    out = layer_test(layer, kwargs=kwargs, input_shape=shape)
    assert out.shape[:-1] == shape[:-1]


def test_adapt_learns_before_the_first_call():
    data = np.float32([[2, 4], [6, 8]])
    out = layer_test(
        Standardize,
        input_data=data,
        adapt_data=data,
        expected_output=(data - 5) / np.sqrt(5),
    )
    assert abs(out.mean()) < 1e-6


def test_integer_output_passes_by_the_gradients():
    layer_test(
        Bucket,
        kwargs={"boundaries": (1.0, 3.0)},
        input_data=np.float32([[0.5], [2.0], [4.0]]),
        expected_output=np.int32([[0], [1], [2]]),
        expected_output_dtype="int32",
    )


def test_weights_go_into_the_constructor_that_takes_them():
    assert layer_test(Scaled, input_shape=(2, 2)).shape == (2, 2)


@pytest.mark.parametrize(("layer", "shape"), [(NnxBlock, (4, 3)), (nnx.LayerNorm, (4, 5))])
def test_nnx_comes_in_through_the_bridge(layer, shape):
    kwargs = {"features": 5} if layer is NnxBlock else {"num_features": 5}
    layer_test(layer, kwargs=kwargs, input_shape=shape, expected_output_shape=(4, 5))


def test_a_bridged_module_can_be_given_itself():
    out = layer_test(
        nnx.bridge.ToLinen,
        kwargs={"nnx_class": nnx.Linear, "args": (3, 4)},
        input_shape=(2, 3),
        skip=["orbax", "sharded"],
    )
    assert out.shape == (2, 4)


def test_low_precision_and_boolean_inputs():
    out = layer_test(
        nn.Dense,
        kwargs={"features": 2, "param_dtype": jnp.bfloat16},
        input_shape=(2, 3),
        input_dtype="bfloat16",
        skip=["orbax", "sharded"],
    )
    assert out.dtype == jnp.bfloat16
    negated = lambda: nn.Sequential([jnp.logical_not])  # noqa: E731
    assert layer_test(negated, input_shape=(2, 3), input_dtype="bool").dtype == bool


def test_a_single_device_passes_by_the_sharded_check(monkeypatch, caplog):
    monkeypatch.setattr(jax, "devices", lambda: [jax.local_devices()[0]])
    with caplog.at_level("DEBUG", logger="monolith_jax.testing"):
        layer_test(nn.LayerNorm, input_shape=(2, 3), skip=["training", "gradients", "orbax"])
    assert "'sharded' does not apply: there is one device" in caplog.text
