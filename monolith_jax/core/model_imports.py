"""`monolith.core.model_imports`: importing the modules that register models.

Example:
  >>> from monolith_jax.core import model_imports
  >>> model_imports.ImportAllParams(task_dirs=())
  False
"""

from monolith_jax.registry import ImportAllParams, ImportParams

__all__ = ["ImportAllParams", "ImportParams"]
