"""The arguments of `layer_test`: what is generated, compared, replaced, skipped and refused."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from monolith_jax.errors import ConfigError
from monolith_jax.testing import LAYER_CHECKS, LayerTestError, layer_test
from monolith_jax.testing._failure import describe_input
from monolith_jax.testing._input import make_input

FAST = tuple(c for c in LAYER_CHECKS if c in ("training", "gradients", "orbax", "sharded", "vmap"))
quick = functools.partial(layer_test, skip=FAST)


class Identity(nn.Module):
    """Returns its input, through a function if one is given."""

    function: object = None

    def __call__(self, x):
        return x if self.function is None else self.function(x)


class TestInput:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "complex64"])
    def test_is_generated_from_shape_and_dtype(self, dtype):
        x, shape = make_input((4, 100), dtype, None, seed=0)
        assert (x.shape, x.dtype, shape) == ((4, 100), jnp.dtype(dtype), (4, 100))
        low, high = (-0.5, 9.5) if dtype in ("float32", "bfloat16", "complex64") else (0, 9)
        assert low <= x.real.min() < low + 1
        assert high - 1 < x.real.max() <= high

    def test_booleans_are_both(self):
        assert set(np.unique(make_input((100,), "bool", None, 0)[0])) == {False, True}

    def test_float32_is_the_default(self):
        assert make_input((2,), None, None, 0)[0].dtype == np.float32

    def test_none_becomes_one_to_three_by_the_seed(self):
        sizes = {make_input((None, 2), None, None, seed)[0].shape for seed in range(30)}
        assert sizes == {(1, 2), (2, 2), (3, 2)}

    def test_the_same_seed_gives_the_same_input(self):
        a, b, c = (make_input((5,), None, None, seed)[0] for seed in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)

    def test_data_is_taken_as_it_is(self):
        data = np.arange(6).reshape(2, 3)
        out = quick(Identity, input_data=data)
        np.testing.assert_array_equal(out, data)
        assert out.dtype == np.int32  # as jax has it without x64

    def test_is_described(self):
        assert describe_input(np.zeros((0,), np.float32), None) == "float32[0]"
        assert describe_input(np.array([True]), None) == "bool[1]"
        assert describe_input(np.array([1j]), None) == "complex128[1] (complex)"
        assert describe_input(np.float32([0.5, 2]), 3) == (
            "float32[2] (0.5 to 2, generated with seed=3)"
        )


class TestExpectedOutput:
    def test_integers_are_compared_exactly(self):
        data = np.int32([1000, 2000])
        quick(Identity, input_data=data, expected_output=data)
        with pytest.raises(LayerTestError, match="Mismatched elements: 1 / 2"):
            quick(Identity, input_data=data, expected_output=np.int32([1000, 2001]))

    def test_floats_within_a_thousandth_as_in_monolith(self):
        data = np.float32([1000, 2000])
        quick(Identity, input_data=data, expected_output=data * 1.0009)
        with pytest.raises(LayerTestError, match=r"Not equal to tolerance rtol=0.001"):
            quick(Identity, input_data=data, expected_output=data * 1.002)

    def test_not_a_number_equals_itself(self):
        data = np.float32([np.nan, 1])
        quick(Identity, input_data=data, expected_output=data, skip=[*FAST, "bfloat16"])

    def test_a_harness_compares_if_it_can(self):
        calls = []

        class Harness:
            def assertAllClose(self, a, b):
                calls.append(("close", b))

            def assertAllEqual(self, a, b):
                calls.append(("equal", b))
                raise AssertionError("not at all")

        quick(Identity, input_shape=(2,), expected_output=5, test_harness=Harness())
        with pytest.raises(LayerTestError, match=r"layer Identity.*: not at all"):
            quick(Identity, input_data=np.int32([1]), expected_output=6, test_harness=Harness())
        assert calls == [("close", 5), ("equal", 6)]
        with pytest.raises(LayerTestError, match="'values'"):
            quick(Identity, input_shape=(2,), expected_output=5, test_harness=object())


class TestSettings:
    def test_has_the_originals_arguments_in_its_order(self):
        parameters = inspect.signature(layer_test).parameters.values()
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional == [
            "layer_cls",
            "kwargs",
            "input_shape",
            "input_dtype",
            "input_data",
            "expected_output",
            "expected_output_dtype",
            "expected_output_shape",
            "validate_training",
            "adapt_data",
            "custom_objects",
            "test_harness",
        ]

    def test_custom_objects_replace_names_in_the_kwargs(self):
        data = np.float32([1, 2])
        out = quick(
            Identity,
            kwargs={"function": "double"},
            input_data=data,
            custom_objects={"double": lambda x: 2 * x},
        )
        np.testing.assert_array_equal(out, 2 * data)

    def test_the_callers_kwargs_stay_as_they_are(self):
        kwargs = {"function": "same"}
        quick(Identity, kwargs=kwargs, input_shape=(2,), custom_objects={"same": None})
        assert kwargs == {"function": "same"}

    def test_validate_training_false_trains_nothing(self):
        def no_gradient(x):
            return jax.pure_callback(lambda x: x, x, x, vmap_method="sequential")

        arguments = {"kwargs": {"function": no_gradient}, "input_shape": (2,)}
        out = layer_test(Identity, **arguments, validate_training=False, skip=["sharded"])
        assert out.shape == (2,)
        with pytest.raises(LayerTestError, match="failed for layer Identity"):
            layer_test(Identity, **arguments, skip=["sharded"])

    def test_random_streams_have_names(self):
        class Noise(nn.Module):
            def __call__(self, x):
                return x + jax.random.normal(self.make_rng("noise"), x.shape, x.dtype)

        quick(Noise, input_shape=(2,), rng_names=["noise"])
        with pytest.raises(LayerTestError, match=r"check 'call' failed for layer Noise.*noise"):
            quick(Noise, input_shape=(2,))

    def test_adapt_can_be_skipped(self):
        given = functools.partial(layer_test, Identity, input_shape=(2,), adapt_data=np.ones(2))
        with pytest.raises(LayerTestError, match="no method adapt"):
            given(skip=FAST)
        assert given(skip=[*FAST, "adapt"]).shape == (2,)


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "input_shape is None and there is no input_data"),
            ({"input_shape": (-1, 2)}, "negative size"),
            ({"input_shape": (2,), "input_dtype": "string"}, "Hash or look strings up on the host"),
            ({"input_data": np.array(["a"])}, "no string arrays"),
            ({"input_data": np.array([None])}, "no string arrays"),
            ({"input_shape": (2,), "expected_output": np.array(["a", "b"])}, "no string arrays"),
            ({"input_shape": (2,), "expected_output_dtype": "string"}, "no string arrays"),
            ({"input_shape": (2,), "input_dtype": "datetime64[s]"}, "is no dtype of numbers"),
            ({"input_shape": (2,), "skip": ["gradient"]}, "did you mean gradients"),
        ],
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(ConfigError, match=message):
            layer_test(Identity, **arguments)

    def test_a_missing_shape_is_a_value_error_as_in_monolith(self):
        with pytest.raises(ValueError, match="input_shape is None"):
            layer_test(nn.Dense, kwargs={"features": 2})

    def test_what_is_no_flax_class(self):
        with pytest.raises(LayerTestError, match="not an instance: Dense"):
            layer_test(nn.Dense(2), input_shape=(2, 2))
        with pytest.raises(LayerTestError, match="dict makes a dict; layer_test is for Flax"):
            layer_test(dict, input_shape=(2, 2))

    def test_more_than_one_output(self):
        with pytest.raises(LayerTestError, match=r"check 'call'.*one output array, not tuple"):
            layer_test(Identity, kwargs={"function": lambda x: (x, x)}, input_shape=(2,))

    def test_wrong_constructor_arguments_name_the_layer(self):
        with pytest.raises(LayerTestError, match=r"'init' failed for layer Dense.*'wide': 3"):
            layer_test(nn.Dense, kwargs={"features": 2, "wide": 3}, input_shape=(2, 2))
