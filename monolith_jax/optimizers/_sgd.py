"""Gradient descent, as `tf.compat.v1.train.GradientDescentOptimizer` computes it."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from monolith_jax.config import field
from monolith_jax.optimizers._arithmetic import Arithmetic
from monolith_jax.optimizers._rule import Arrays, UpdateRule
from monolith_jax.optimizers._schedules import LearningRate


@dataclass(frozen=True, kw_only=True)
class Sgd(UpdateRule, choice="sgd"):
    """Gradient descent: `w -= g * learning_rate`.

    TF subtracts the duplicates of a row one by one where we sum them first: the sparse update
    may differ in the last bits.

    References:
      TF's `ApplyGradientDescent`, `ResourceScatterSub`.
    """

    learning_rate: LearningRate = field(0.01, doc="The step size. TF1 has no default.")

    tf_name: ClassVar[str] = "GradientDescent"

    def _formula(
        self, at: Arithmetic, g: jax.Array, w: jax.Array, slots: Arrays, scalars: Arrays, rows: bool
    ) -> tuple[jax.Array, Arrays]:
        return at.product(g, at.rate(self.learning_rate)), {}
