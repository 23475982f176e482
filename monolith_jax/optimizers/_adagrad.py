"""Adagrad, as `tf.compat.v1.train.AdagradOptimizer` computes it."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from monolith_jax.config import field
from monolith_jax.optimizers._arithmetic import Arithmetic
from monolith_jax.optimizers._rule import Arrays, Slot, UpdateRule, require
from monolith_jax.optimizers._schedules import LearningRate


@dataclass(frozen=True, kw_only=True)
class Adagrad(UpdateRule, choice="adagrad"):
    """Adagrad: each value's step shrinks with the sum of its squared gradients.

        a += g * g
        w -= (g * learning_rate) / sqrt(a)

    There is no epsilon: the accumulator starts above zero instead. The accumulators have TF's
    bits. The values come within 4 units in the last place of their scale in 1,000 steps: TF's
    kernel multiplies by Eigen's approximate rsqrt, which no other library has, where this one
    divides by the root, equally rounded on any number of devices.

    References:
      Duchi, Hazan, Singer (2011), Adaptive Subgradient Methods. TF's `ApplyAdagrad`,
      `ResourceSparseApplyAdagrad`.
    """

    learning_rate: LearningRate = field(
        0.05, doc="The step size. TF1 has no default; this is its DNNClassifier's."
    )
    initial_accumulator_value: float = field(
        0.1, doc="What the accumulators start at; above zero, since there is no epsilon."
    )

    tf_name: ClassVar[str] = "Adagrad"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "initial_accumulator_value", 0.0)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The sums of squared gradients."""
        return (Slot("accumulator", self.initial_accumulator_value, "Adagrad"),)

    def _formula(
        self, at: Arithmetic, g: jax.Array, w: jax.Array, slots: Arrays, scalars: Arrays, rows: bool
    ) -> tuple[jax.Array, Arrays]:
        a = slots["accumulator"] + at.product(g, g)
        root = at.rounded(jnp.sqrt(a))
        return (g * at.rate(self.learning_rate)) / root, {"accumulator": a}
