"""Layers that are wrong, each in one way, are each caught by the check meant for it."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.custom_batching import custom_vmap, sequential_vmap
from jax.experimental.custom_partitioning import custom_partitioning

from monolith_jax.testing import LAYER_CHECKS, LayerTestError, layer_test


class Base(nn.Module):
    """A right layer, of which each wrong one spoils a step."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.constant(2.0), x.shape[-1:])
        return self.spoil(x * scale.astype(x.dtype))

    def spoil(self, y):
        return y


# -- weights ----------------------------------------------------------------------

_drawn = itertools.count()


class DrawsWhenConstructed(Base):
    """Each instance has a number of its own that is no weight."""

    offset: float = dataclasses.field(default_factory=lambda: float(next(_drawn)))

    def spoil(self, y):
        return y + self.offset


class ChangesWithEveryCall(Base):
    def spoil(self, y):
        return y + float(next(_drawn))


class IgnoresItsWeights(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.param("scale", nn.initializers.ones, ())
        return x * 2


# -- dtype, shape, signature, values -----------------------------------------------------


class WrongDtype(Base):
    def spoil(self, y):
        return y.astype(jnp.float16)


class WrongShape(Base):
    def spoil(self, y):
        return y.sum(-1)


class AnotherShapeWhenTraced(Base):
    def spoil(self, y):
        return y[:, :1] if isinstance(y, jax.core.Tracer) else y


class AnotherDtypeWhenTraced(Base):
    def spoil(self, y):
        return y.astype(jnp.bfloat16) if isinstance(y, jax.core.Tracer) else y


class LiesAboutItsShape(Base):
    def compute_output_shape(self, input_shape):
        return (*input_shape, 1)


class BranchesOnNumbers(Base):
    def spoil(self, y):
        return y if y.sum() > 0 else -y


class OneBatchSizeOnly(Base):
    def spoil(self, y):
        return y + self.param("per_row", nn.initializers.ones, (y.shape[0], 1)).astype(y.dtype)


class WrongValues(Base):
    def spoil(self, y):
        return y + 0.125


# -- training, gradients -----------------------------------------------------------------


class FreezesItsWeights(Base):
    def spoil(self, y):
        return y + jax.lax.stop_gradient(
            self.param("bias", nn.initializers.ones, ()).astype(y.dtype)
        )


class InfiniteGradient(Base):
    def spoil(self, y):
        return jnp.sqrt(jnp.maximum(y, 0))


def with_gradient_times(factor):
    @jax.custom_vjp
    def identity(y):
        return y

    identity.defvjp(lambda y: (y, None), lambda _, g: (factor * g,))
    return identity


class UphillGradient(Base):
    def spoil(self, y):
        return with_gradient_times(-1.0)(y)


class TwiceTheGradient(Base):
    def spoil(self, y):
        return with_gradient_times(2.0)(y)


# -- jit, vmap ----------------------------------------------------------------------


class AnotherPathWhenTraced(Base):
    def spoil(self, y):
        return y * 1.01 if isinstance(y, jax.core.Tracer) else y


@custom_vmap
def first_row_twice(y):
    return y + 0 * y


@first_row_twice.def_vmap
def _wrong_rule(axis_size, in_batched, y):
    return jnp.broadcast_to(y[:1], y.shape), True


@jax.custom_vjp
def first_row_twice_with_gradient(y):
    return first_row_twice(y)


first_row_twice_with_gradient.defvjp(lambda y: (first_row_twice(y), None), lambda _, g: (g,))


class WrongBatchingRule(Base):
    def spoil(self, y):
        return first_row_twice_with_gradient(y)


# -- checkpoints ----------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Pair:
    """A pytree that flax's serialization was never told of."""

    a: jax.Array
    b: jax.Array


class WeightsOfItsOwnClass(Base):
    def spoil(self, y):
        pair = self.variable("own", "pair", lambda: Pair(jnp.ones(()), jnp.ones(()))).value
        return y * pair.a.astype(y.dtype) * pair.b.astype(y.dtype)


class EmptyWeight(Base):
    def spoil(self, y):
        nothing = self.param("nothing", nn.initializers.ones, (0, 3))
        return y + nothing.sum().astype(y.dtype)


# -- devices, precision ------------------------------------------------------------------


@custom_partitioning
def kernel(y):
    return y - y.mean(0, keepdims=True)


def _each_device_alone(mesh, arg_shapes, result_shape):
    shardings = jax.tree.map(lambda s: s.sharding, (result_shape, arg_shapes))
    return mesh, lambda y: y - y.mean(0, keepdims=True), shardings[0], shardings[1]


kernel.def_partition(
    partition=_each_device_alone,
    infer_sharding_from_operands=lambda mesh, arg_shapes, result_shape: arg_shapes[0].sharding,
    sharding_rule="b f -> b f",
)
minus_batch_mean = sequential_vmap(kernel)


@jax.custom_vjp
def centered(y):
    return minus_batch_mean(y)


centered.defvjp(lambda y: (minus_batch_mean(y), None), lambda _, g: (g - g.mean(0, keepdims=True),))


class ForgetsTheOtherDevices(Base):
    def spoil(self, y):
        return centered(y)


class OnlyFloat32(Base):
    def spoil(self, y):
        return jax.lax.mul(y, jnp.ones(y.shape, jnp.float32))


class Overflows(Base):
    def spoil(self, y):
        return y if y.dtype != jnp.bfloat16 else jnp.exp(y * 100)


# -- adapt ----------------------------------------------------------------------


class AdaptsNothing(Base):
    def adapt(self, data):
        return data.mean()


NARROW = {"validate_training": False}
ADAPT = {"adapt_data": np.ones((2, 2), np.float32)}

WRONG = [
    (AdaptsNothing, ADAPT, "adapt", "changed no variable"),
    (Base, ADAPT, "adapt", "no method adapt"),
    (DrawsWhenConstructed, {}, "weights", "a second instance with the same weights"),
    (ChangesWithEveryCall, {}, "weights", "when the weights are set anew"),
    (IgnoresItsWeights, {}, "weights", "does not use the weights"),
    (WrongDtype, {}, "dtype", "found output dtype=float16 but expected to find float32"),
    (WrongShape, {}, "shape", "found output shape=(4,) but (None, 3) was expected"),
    (AnotherShapeWhenTraced, {}, "signature", "(4, 1) was computed by jax.eval_shape"),
    (AnotherDtypeWhenTraced, {}, "signature", "jax.eval_shape computed bfloat16"),
    (LiesAboutItsShape, {}, "signature", "computed by the layer's compute_output_shape"),
    (BranchesOnNumbers, {}, "signature", "TracerBoolConversionError"),
    (OneBatchSizeOnly, {}, "signature", "no batch of another size (5)"),
    (WrongValues, {}, "values", "Not equal to tolerance rtol=0.001"),
    (FreezesItsWeights, {}, "training", "no gradient reaches the weight ['bias']"),
    (InfiniteGradient, {}, "training", "gradient of the weight ['scale'] is not finite"),
    (UphillGradient, {}, "training", "no step against the gradient"),
    (AnotherPathWhenTraced, {}, "jit", "Values not approximately equal"),
    (WrongBatchingRule, {}, "vmap", "Values not approximately equal"),
    (TwiceTheGradient, {}, "gradients", "Not equal to tolerance"),
    (WeightsOfItsOwnClass, {}, "msgpack", "can not serialize 'Pair' object"),
    (EmptyWeight, {}, "orbax", "zero size"),
    (ForgetsTheOtherDevices, {}, "sharded", "with the batch over 8 devices"),
    (OnlyFloat32, {}, "bfloat16", "requires arguments to have the same dtypes"),
    (Overflows, {}, "bfloat16", "no longer finite"),
]


@pytest.mark.parametrize(
    ("layer", "extra", "check", "message"), WRONG, ids=[f"{w[0].__name__}-{w[2]}" for w in WRONG]
)
def test_a_wrong_layer_is_caught_by_the_check_meant_for_it(layer, extra, check, message):
    arguments = {"input_shape": (4, 3), "expected_output_shape": (None, 3), **extra}
    if check == "values":
        data = np.ones((4, 3), np.float32)
        arguments |= {"input_data": data, "expected_output": 2 * data}
    with pytest.raises(LayerTestError, match=re.escape(message)) as caught:
        layer_test(layer, **arguments)
    assert caught.value.check == check
    assert caught.value.layer == layer.__name__


@pytest.mark.parametrize("layer", [WrongBatchingRule, TwiceTheGradient, ForgetsTheOtherDevices])
def test_the_layer_is_right_but_for_that(layer):
    """Without the check that is meant for it each would pass: no other check is a stand-in."""
    layer_test(layer, input_shape=(4, 3), skip=["vmap", "gradients", "sharded", "orbax"])


def test_every_check_has_a_wrong_layer():
    assert {check for _, _, check, _ in WRONG} == set(LAYER_CHECKS)


def test_a_failure_names_the_layer_the_input_and_the_kwargs():
    with pytest.raises(
        LayerTestError,
        match=r"^check 'shape' failed for layer Dense, input float32\[2, 3\] \(-?\d.* to \d.*, "
        r"generated with seed=7\), kwargs \{'features': 4\}: found output shape=\(2, 4\) but",
    ):
        layer_test(
            nn.Dense,
            kwargs={"features": 4},
            input_shape=(2, 3),
            expected_output_shape=(2, 5),
            seed=7,
        )
