"""A test written for Monolith's testing_utils runs after its import line is changed."""

import inspect
import unittest

import numpy as np
from flax import linen as nn

import monolith_jax.testing
from monolith_jax.core import testing_utils
from monolith_jax.core.testing_utils import layer_test


def test_binds_the_public_name():
    assert testing_utils.__all__ == ["layer_test"]
    assert layer_test is monolith_jax.testing.layer_test


def test_has_the_originals_defaults():
    parameters = inspect.signature(layer_test).parameters
    assert parameters["validate_training"].default is True
    assert all(
        parameters[name].default is None
        for name in ("kwargs", "input_shape", "adapt_data", "custom_objects", "test_harness")
    )


def test_a_call_in_the_originals_style():
    data = np.float32([[1, 2]])
    output = layer_test(
        nn.Dense,
        {"features": 2, "kernel_init": nn.initializers.ones},
        None,
        None,
        data,
        np.float32([[3, 3]]),
        "float32",
        (None, 2),
        True,
        None,
        None,
        unittest.TestCase(),
        skip=["orbax"],
    )
    np.testing.assert_array_equal(output, [[3, 3]])
