"""Momentum, as `tf.compat.v1.train.MomentumOptimizer` computes it."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from monolith_jax.config import field
from monolith_jax.optimizers._arithmetic import Arithmetic
from monolith_jax.optimizers._rule import Arrays, Slot, UpdateRule
from monolith_jax.optimizers._schedules import LearningRate


@dataclass(frozen=True, kw_only=True)
class Momentum(UpdateRule, choice="momentum"):
    """Gradient descent with momentum, plain or Nesterov's.

        m = m * momentum + g
        w -= m * learning_rate                                            (plain)
        w -= g * learning_rate + (m * momentum) * learning_rate           (Nesterov, dense)
        w -= learning_rate * g + (learning_rate * momentum) * m           (Nesterov, rows)

    References:
      Sutskever et al. (2013), On the importance of initialization and momentum. TF's
      `ApplyMomentum`, `ResourceSparseApplyMomentum`.
    """

    learning_rate: LearningRate = field(0.01, doc="The step size. TF1 has no default.")
    momentum: float = field(0.9, doc="What is kept of the last step. TF1 has no default.")
    use_nesterov: bool = field(False, doc="Use the gradient's momentum one step ahead.")

    tf_name: ClassVar[str] = "Momentum"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The decaying sum of gradients."""
        return (Slot("momentum", 0.0, "Momentum"),)

    def _formula(
        self, at: Arithmetic, g: jax.Array, w: jax.Array, slots: Arrays, scalars: Arrays, rows: bool
    ) -> tuple[jax.Array, Arrays]:
        rate, keep = at.rate(self.learning_rate), at.number(self.momentum)
        # Not `g` itself, which may be a sum over duplicates: XLA would add them one by one to the
        # product, and TF adds their sum.
        m = at.product(slots["momentum"], keep) + at.rounded(g)
        if not self.use_nesterov:
            move = at.product(m, rate)
        elif rows:
            move = at.product(rate, g) + at.product(at.product(rate, keep), m)
        else:
            move = at.product(g, rate) + at.product(at.product(m, keep), rate)
        return move, {"momentum": m}
