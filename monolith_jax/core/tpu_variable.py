"""Monolith's ``monolith.core.tpu_variable``: its public names, bound to ours.

====================== ==========================================================================
``ReplicatedVariable`` `monolith_jax.replicated_variable.ReplicatedVariable`
``VariableBase``       its base class of operators; in Monolith TensorFlow's ``core.Tensor``
``TF_23``              False: which TensorFlow is installed does not matter here
====================== ==========================================================================
"""

from typing import Final

from monolith_jax.replicated_variable import ArrayOperators as VariableBase
from monolith_jax.replicated_variable import ReplicatedVariable

TF_23: Final = False

__all__ = ["TF_23", "ReplicatedVariable", "VariableBase"]
