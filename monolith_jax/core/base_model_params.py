"""`monolith.core.base_model_params`: the base class of all registered models.

Example:
  >>> from monolith_jax.core import base_model_params
  >>> base_model_params.SingleTaskModelParams().task()
  Traceback (most recent call last):
  ...
  NotImplementedError: SingleTaskModelParams does not define task()
"""

from monolith_jax.registry import SingleTaskModelParams

__all__ = ["SingleTaskModelParams"]
