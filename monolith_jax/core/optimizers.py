"""`monolith.core.optimizers`: optimizer names to constructors with TF1's arguments.

The constructors return `optax.GradientTransformation`s; see `monolith_jax.optimizers`.

Example:
  >>> from monolith_jax.core import optimizers
  >>> optimizer = optimizers.optimizers["adagrad"](learning_rate=0.1)
"""

from monolith_jax.optimizers import optimizers

__all__ = ["optimizers"]
