"""`monolith.core.testing_utils`: the test of one layer.

Example:
  >>> from flax import linen as nn
  >>> from monolith_jax.core import testing_utils
  >>> testing_utils.layer_test(nn.Dense, {"features": 4}, (2, 3), skip=["orbax"]).shape
  (2, 4)
"""

from monolith_jax.testing import layer_test

__all__ = ["layer_test"]
