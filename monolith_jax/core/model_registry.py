"""`monolith.core.model_registry`: model names to classes and configs.

Example:
  >>> from monolith_jax.core import model_registry
  >>> model_registry.GetParams("no_such_task.Model")
  Traceback (most recent call last):
  ...
  monolith_jax.registry._errors.UnknownModelError: no model 'no_such_task.Model': ...
"""

from monolith_jax.registry import (
    GetAllRegisteredClasses,
    GetClass,
    GetParams,
    RegisterSingleTaskModel,
)

__all__ = ["GetAllRegisteredClasses", "GetClass", "GetParams", "RegisterSingleTaskModel"]
