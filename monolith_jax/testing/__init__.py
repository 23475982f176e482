"""Helpers for your own tests: `layer_test` holds one Flax layer against everything it should do.

Example:
  >>> from flax import linen as nn
  >>> from monolith_jax.testing import layer_test
  >>> output = layer_test(nn.Dense, kwargs={"features": 4}, input_shape=(2, 3))
  >>> output.shape
  (2, 4)
"""

from monolith_jax.testing._failure import LayerTestError
from monolith_jax.testing._layer_test import LAYER_CHECKS, layer_test

__all__ = ["LAYER_CHECKS", "LayerTestError", "layer_test"]
