"""`monolith.core.tpu_variable`: the replicated variable.

`VariableBase`, TensorFlow's ``core.Tensor`` in the original, is the base class that brings the
operators; `TF_23` is False, because no version of TensorFlow matters here.

Example:
  >>> from monolith_jax.core import tpu_variable
  >>> variable = tpu_variable.ReplicatedVariable("step", [1.0])
  >>> float(variable.assign_add(2.0))
  3.0
"""

from typing import Final

from monolith_jax.replicated_variable import ArrayOperators as VariableBase
from monolith_jax.replicated_variable import ReplicatedVariable

TF_23: Final = False

__all__ = ["TF_23", "ReplicatedVariable", "VariableBase"]
