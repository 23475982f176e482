"""Adam, as `tf.compat.v1.train.AdamOptimizer` computes it, and its lazy form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from monolith_jax.config import field
from monolith_jax.optimizers._arithmetic import Arithmetic
from monolith_jax.optimizers._rule import Arrays, Scalars, Slot, UpdateRule
from monolith_jax.optimizers._schedules import LearningRate


@dataclass(frozen=True, kw_only=True)
class _AdamFormula(UpdateRule):
    """The formula that Adam and LazyAdam share; they differ in the rows it is applied to."""

    learning_rate: LearningRate = field(0.001, doc="The step size.")
    beta1: float = field(0.9, doc="What the mean of gradients keeps of itself at each step.")
    beta2: float = field(0.999, doc="What the mean of squares keeps of itself at each step.")
    epsilon: float = field(
        1e-8, doc='Added to the root: "epsilon hat" of section 2.1 of the paper, as in TF.'
    )

    tf_name: ClassVar[str] = "Adam"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The decaying means of gradients and of their squares."""
        return (Slot("m", 0.0, "Adam"), Slot("v", 0.0, "Adam_1"))

    @property
    def scalars(self) -> dict[str, Any]:
        """The powers of beta1 and beta2 of the first step."""
        return {"beta1_power": self.beta1, "beta2_power": self.beta2}

    def advance(self, scalars: Scalars) -> dict[str, Any]:
        """Returns the powers multiplied once more, in their own dtype (float32 in TF)."""
        return {
            "beta1_power": self._times(scalars["beta1_power"], self.beta1),
            "beta2_power": self._times(scalars["beta2_power"], self.beta2),
        }

    def _times(self, power: Any, beta: Any) -> jax.Array:
        power = jnp.asarray(power, jnp.float32) if isinstance(power, float) else power
        # The product feeds the next step's `1 - power`: with two steps in one program it has to
        # be rounded like any other. A power is never negative, which XLA cannot know.
        at = Arithmetic(power.dtype, jnp.sign(power).astype(jnp.int32), self.exact)
        return at.product(power, at.number(beta))

    def _formula(
        self, at: Arithmetic, g: jax.Array, w: jax.Array, slots: Arrays, scalars: Arrays, rows: bool
    ) -> tuple[jax.Array, Arrays]:
        m, v = slots["m"], slots["v"]
        if rows:
            more = self._additions(at, g)
            m, v = self._decayed(at, m, v)
            m, v = m + more["m"], v + more["v"]
        else:
            m = m + at.product(g - m, at.one_minus(self.beta1))
            v = v + at.product(at.product(g, g) - v, at.one_minus(self.beta2))
        return self._movement(at, m, v, scalars), {"m": m, "v": v}

    def _decayed(self, at: Arithmetic, m: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        return at.product(m, at.number(self.beta1)), at.product(v, at.number(self.beta2))

    def _additions(self, at: Arithmetic, g: jax.Array) -> Arrays:
        # TF's source says (g * g) * (1 - beta2); its graph optimizer, on by default, pushes the
        # constant down to one factor, and that is what a session computes.
        return {
            "m": at.product(g, at.one_minus(self.beta1)),
            "v": at.product(g, at.product(g, at.one_minus(self.beta2))),
        }

    def _movement(self, at: Arithmetic, m: jax.Array, v: jax.Array, scalars: Arrays) -> jax.Array:
        one = at.number(1.0)
        rate = at.rate(self.learning_rate)
        rate = rate * jnp.sqrt(one - scalars["beta2_power"]) / (one - scalars["beta1_power"])
        return (m * rate) / (jnp.sqrt(v) + at.number(self.epsilon))


@dataclass(frozen=True, kw_only=True)
class Adam(_AdamFormula, choice="adam"):
    """Adam with TF's semantics: on a table, **every** row decays and moves at every step.

        rate = learning_rate * sqrt(1 - beta2_power) / (1 - beta1_power)
        m += (g - m) * (1 - beta1)                dense;  m = m * beta1 + g * (1 - beta1)   rows
        v += (g * g - v) * (1 - beta2)            dense;  v = v * beta2 + g * (g * (1 - beta2)) rows
        w -= (m * rate) / (sqrt(v) + epsilon)

    A table costs its whole size in memory traffic at each step. A table engine calls
    `decay_all`, adds `additions` to the touched rows, then `move_all`; `update(rows=True)` gives
    the touched rows alone, with the same numbers. Where that is too slow use `LazyAdam`.

    Example:
      >>> rule = Adam(learning_rate=0.1)
      >>> value, slots = jnp.zeros((3, 2)), rule.init_slots((3, 2))
      >>> touched, gradient = jnp.asarray([1]), jnp.ones((1, 2))
      >>> slots = rule.decay_all(slots, 0)
      >>> more = rule.additions(gradient, 0)
      >>> slots = {name: slot.at[touched].add(more[name]) for name, slot in slots.items()}
      >>> (value + rule.move_all(value, slots, rule.scalars, 0)).round(3).tolist()
      [[0.0, 0.0], [-0.1..., -0.1...], [0.0, 0.0]]

    References:
      Kingma, Ba (2015), Adam. TF's `ApplyAdam`; `AdamOptimizer._apply_sparse_shared`.
    """

    touches_all_rows: ClassVar[bool] = True

    def decay_all(self, slots: Mapping[str, jax.Array], step: jax.Array | int) -> Arrays:
        """Returns all rows' slots before this step's gradients are added: `m * beta1, v * beta2`.

        Args:
          slots: `m` and `v`, whole tables or shards of them, `[rows, dim]`.
          step: int32 [], updates made before this one.
        """
        at = self._arithmetic(step, slots["m"].dtype, slots["v"].dtype)
        m, v = self._decayed(at, slots["m"].astype(at.dtype), slots["v"].astype(at.dtype))
        return {"m": m.astype(slots["m"].dtype), "v": v.astype(slots["v"].dtype)}

    def additions(self, gradient: jax.Array, step: jax.Array | int) -> Arrays:
        """Returns what the touched rows' slots gain: `g * (1 - beta1)` and `g * (g * (1 - beta2))`.

        Args:
          gradient: `[n, dim]`, summed over duplicates.
          step: int32 [], updates made before this one.

        Returns:
          By slot name, `[n, dim]` of float32 at least: cast to the slots' dtype when adding.
        """
        at = self._arithmetic(step, gradient.dtype)
        return self._additions(at, gradient.astype(at.dtype))

    def move_all(
        self,
        value: jax.Array,
        slots: Mapping[str, jax.Array],
        scalars: Scalars,
        step: jax.Array | int,
    ) -> jax.Array:
        """Returns every row's change, in `value`'s dtype: the new table is `value + delta`.

        Args:
          value: `[rows, dim]`, a whole table or a shard of it.
          slots: `m` and `v` after `decay_all` and the additions.
          scalars: the powers of this step (`advance` comes after it).
          step: int32 [], updates made before this one.
        """
        at = self._arithmetic(step, value.dtype, slots["m"].dtype, slots["v"].dtype)
        powers = {name: at.number(power) for name, power in scalars.items()}
        m, v = slots["m"].astype(at.dtype), slots["v"].astype(at.dtype)
        return (-self._movement(at, m, v, powers)).astype(value.dtype)


@dataclass(frozen=True, kw_only=True)
class LazyAdam(_AdamFormula, choice="lazy_adam"):
    """Adam that leaves alone the rows a batch did not touch: their m, v and values stay.

    The formula is `Adam`'s; dense parameters get the very same numbers. On a table the means of
    a row decay once per touch, not once per step, so rare rows move differently from TF's Adam;
    the powers of beta1 and beta2 still count all steps. The traffic is that of the touched rows.

    References:
      TF1's `tf.contrib.opt.LazyAdamOptimizer`.
    """
