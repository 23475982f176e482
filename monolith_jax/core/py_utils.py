"""`monolith.core.py_utils`: the nested dict.

Example:
  >>> from monolith_jax.core import py_utils
  >>> py_utils.NestedMap(a=py_utils.NestedMap(b=1)).GetItem("a.b")
  1
"""

from monolith_jax.nested_map import NestedMap

__all__ = ["NestedMap"]
