"""A named value that every device holds: Monolith's ``ReplicatedVariable`` over one ``jax.Array``.

On a TPU, Monolith kept one TensorFlow variable per core and swapped the right one in when a
computation was replicated. A `jax.Array` with a `jax.sharding.NamedSharding` already *is* one value
on many devices, so the variable here is a name, an array and a sharding, and nothing else.

Example:
  >>> import jax, jax.numpy as jnp
  >>> from monolith_jax.replicated_variable import ReplicatedVariable
  >>> step = ReplicatedVariable("step", jnp.float32(1))
  >>> float(jnp.sqrt(step.assign_add(3.0)))
  2.0
  >>> @jax.jit
  ... def advance(step):
  ...     return step.replace(step + 1)
  >>> float(advance(step))
  5.0
"""

from monolith_jax.replicated_variable._errors import GraphEraError, VariableError
from monolith_jax.replicated_variable._operators import ArrayOperators
from monolith_jax.replicated_variable._variable import ReplicatedVariable

__all__ = ["ArrayOperators", "GraphEraError", "ReplicatedVariable", "VariableError"]
