"""FTRL-Proximal, as `tf.compat.v1.train.FtrlOptimizer` computes it."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from monolith_jax.config import field
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers._arithmetic import Arithmetic
from monolith_jax.optimizers._rule import Arrays, Slot, UpdateRule, require
from monolith_jax.optimizers._schedules import LearningRate


@dataclass(frozen=True, kw_only=True)
class Ftrl(UpdateRule, choice="ftrl"):
    """FTRL-Proximal: values that l1 keeps at exactly zero until their gradients insist.

        n = a + g * g
        z += g + 2 * l2_shrinkage * w - (n^-p - a^-p) / learning_rate * w
        w = (clip(z, -l1, l1) - z) / (n^-p / learning_rate + 2 * l2 + beta / learning_rate)
        a = n

    with `p = learning_rate_power`. The delta that `update` returns is the new value less the
    old one, so that `value + delta` may differ from TF in the last bit; zeros are exact.

    References:
      McMahan et al. (2013), Ad Click Prediction, algorithm 1. TF's `ApplyFtrlV2`.
    """

    learning_rate: LearningRate = field(0.05, doc="The step size. TF1 has no default.")
    learning_rate_power: float = field(
        -0.5, doc="How the rate falls with the sum of squares: zero (not at all) or below."
    )
    initial_accumulator_value: float = field(0.1, doc="What the sums of squares start at.")
    l1_regularization_strength: float = field(0.0, doc="Gradients below this keep a value at 0.")
    l2_regularization_strength: float = field(0.0, doc="Pulls towards 0 as part of the model.")
    l2_shrinkage_regularization_strength: float = field(
        0.0, doc="Adds 2 * this * value to the gradient: pulls by the size of the value."
    )
    beta: float = field(0.0, doc="Added to the root of the sum of squares, as in the paper.")

    reads_value: ClassVar[bool] = True
    tf_name: ClassVar[str] = "Ftrl"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "initial_accumulator_value",
            "l1_regularization_strength",
            "l2_regularization_strength",
            "l2_shrinkage_regularization_strength",
            "beta",
        ):
            require(self, name, 0.0, or_equal=True)
        power = self.learning_rate_power
        if isinstance(power, int | float) and power > 0:
            raise ConfigError(f"learning_rate_power must be at most 0, got {power!r}")

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The sums of squared gradients, and the linear coefficients."""
        return (
            Slot("accumulator", self.initial_accumulator_value, "Ftrl"),
            Slot("linear", 0.0, "Ftrl_1"),
        )

    def _formula(
        self, at: Arithmetic, g: jax.Array, w: jax.Array, slots: Arrays, scalars: Arrays, rows: bool
    ) -> tuple[jax.Array, Arrays]:
        rate, two = at.rate(self.learning_rate), at.number(2.0)
        l1 = at.number(self.l1_regularization_strength)
        l2 = at.number(self.l2_regularization_strength) + at.number(self.beta) / (two * rate)
        shrink = two * at.number(self.l2_shrinkage_regularization_strength)
        n = slots["accumulator"] + at.product(g, g)
        old, new = self._root(at, slots["accumulator"]), self._root(at, n)
        drift = at.product(at.rounded((new - old) / rate), w)
        z = slots["linear"] + ((g + at.product(shrink, w)) - drift)
        # The last reads of the old accumulator are behind: it can be overwritten now.
        n = at.after(slots["accumulator"] + at.again(at.product(g, g)), z)
        curvature = at.rounded(self._root(at, n) / rate) + two * l2
        goal = (jnp.clip(z, -l1, l1) - z) / curvature
        return w - goal, {"accumulator": n, "linear": z}

    def _root(self, at: Arithmetic, n: jax.Array) -> jax.Array:
        power = self.learning_rate_power
        if isinstance(power, int | float) and power == -0.5:
            return at.rounded(jnp.sqrt(n))
        return n ** -at.number(power)
