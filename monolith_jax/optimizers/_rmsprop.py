"""RMSProp, as `tf.compat.v1.train.RMSPropOptimizer` computes it."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from monolith_jax.config import field
from monolith_jax.optimizers._arithmetic import Arithmetic
from monolith_jax.optimizers._rule import Arrays, Slot, UpdateRule
from monolith_jax.optimizers._schedules import LearningRate


@dataclass(frozen=True, kw_only=True)
class RMSProp(UpdateRule, choice="rmsprop"):
    """RMSProp: steps scaled by a decaying mean of squared gradients, which starts at **one**.

    Dense:

        ms += (g * g - ms) * (1 - decay)
        mom = mom * momentum + (g * learning_rate) / sqrt(ms + epsilon)
        w -= mom

    Rows (only those that the batch touched decay):

        ms = ms * decay + g * g * (1 - decay)
        mom = mom * momentum + learning_rate / sqrt(ms + epsilon) * g
        w -= mom

    `centered` keeps a decaying mean `mg` of the gradients too, and divides by the root of
    `ms - mg * mg + epsilon`. The dense form has TF's bits; on rows TF's kernel uses Eigen's
    approximate rsqrt, and the last bits of `mom` and `w` differ.

    References:
      Tieleman, Hinton (2012), lecture 6.5; Graves (2013), arXiv:1308.0850, equation 38 for the
      centered form. TF's `ApplyRMSProp`, `ApplyCenteredRMSProp` and their sparse forms.
    """

    learning_rate: LearningRate = field(0.001, doc="The step size. TF1 has no default.")
    decay: float = field(0.9, doc="What the means keep of themselves at each step.")
    momentum: float = field(0.0, doc="What is kept of the last step.")
    epsilon: float = field(1e-10, doc="Added under the root.")
    centered: bool = field(False, doc="Divide by an estimate of the variance, at more memory.")

    tf_name: ClassVar[str] = "RMSProp"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The mean of squares, the mean if `centered`, the momentum: TF's order."""
        names = ["ms", "mg", "momentum"] if self.centered else ["ms", "momentum"]
        return tuple(
            Slot(name, 1.0 if name == "ms" else 0.0, f"RMSProp_{i}" if i else "RMSProp")
            for i, name in enumerate(names)
        )

    def _formula(
        self, at: Arithmetic, g: jax.Array, w: jax.Array, slots: Arrays, scalars: Arrays, rows: bool
    ) -> tuple[jax.Array, Arrays]:
        rate, epsilon = at.rate(self.learning_rate), at.number(self.epsilon)
        ms = self._mean(at, slots["ms"], at.product(g, g), rows)
        new = {"ms": ms}
        under = ms + epsilon
        if self.centered:
            mg = self._mean(at, slots["mg"], g, rows)
            square = at.product(mg, mg)
            # TF adds epsilon last in the dense kernel, first in the sparse one.
            under = under - square if rows else (ms - square) + epsilon
            new["mg"] = mg
        # Rounded: XLA would make an rsqrt of the quotient, which has other bits on CPU where a loop
        # is vectorized than where it is not.
        root = at.rounded(jnp.sqrt(under))
        scaled = at.product(rate / root, g) if rows else (g * rate) / root
        # Also where nothing is kept: jit drops an argument that is not read, and its donation.
        new["momentum"] = at.product(slots["momentum"], at.number(self.momentum)) + scaled
        return new["momentum"], new

    def _mean(self, at: Arithmetic, mean: jax.Array, new: jax.Array, rows: bool) -> jax.Array:
        rest = at.one_minus(self.decay)
        if rows:
            return at.product(mean, at.number(self.decay)) + at.product(new, rest)
        return mean + at.product(new - mean, rest)
