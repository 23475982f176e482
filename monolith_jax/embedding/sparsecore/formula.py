"""A rule's formula as a program of its own, which the SparseCores run on each touched row."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.optimizers import UpdateRule


@dataclass(frozen=True)
class Formula:
    """One step of a rule on one row, as StableHLO.

    The program takes the row's gradient (summed over its uses), its values, its slots, the
    learning rate and the rule's scalars, each float32 [1, width], and returns values and slots.

    Attributes:
      text: the program.
      slots: names of the slots, in order.
      scalars: names of the scalars, in order.
    """

    text: str
    slots: tuple[str, ...]
    scalars: tuple[str, ...]


def step_of(rule: UpdateRule) -> Any:
    """Returns one step of a rule as a function of arrays alone; it is elementwise.

    It is `UpdateRule.update` on rows, with `exact=False`: the detours by which exact rules
    keep XLA:CPU from merging operations mean nothing to a SparseCore. Values may differ from
    TensorFlow's by a few units in the last place.

    Example:
      >>> from monolith_jax.optimizers import Sgd
      >>> step = step_of(Sgd(learning_rate=0.5))
      >>> gradient, values, rate = jnp.ones((1, 2)), jnp.zeros((1, 2)), jnp.full((1, 2), 0.5)
      >>> step(gradient, values, rate)[0].tolist()
      [[-0.5, -0.5]]
    """
    slots = tuple(slot.name for slot in rule.slots)

    def step(gradient: jax.Array, value: jax.Array, *rest: jax.Array) -> tuple[jax.Array, ...]:
        held = dict(zip(slots, rest, strict=False))
        rate, *scalars = rest[len(slots) :]
        told: Any = dataclasses.replace(rule, exact=False, learning_rate=lambda _: rate)
        names = dict(zip(rule.scalars, scalars, strict=True))
        delta, new = told.update(gradient, value, held, names, jnp.int32(0), rows=True)
        return (value + delta, *(new[name] for name in slots))

    return step


@lru_cache
def formula_of(rule: UpdateRule, width: int) -> Formula:
    """Returns a rule's formula for rows of `width` lanes.

    Example:
      >>> from monolith_jax.optimizers import Adagrad
      >>> formula = formula_of(Adagrad(), 8)
      >>> formula.slots, "stablehlo.sqrt" in formula.text
      (('accumulator',), True)
    """
    slots, scalars = tuple(slot.name for slot in rule.slots), tuple(rule.scalars)
    row = jax.ShapeDtypeStruct((1, width), jnp.float32)
    count = 2 + len(slots) + 1 + len(scalars)
    # Unused ones stay: the operation passes all.
    lowered = jax.jit(step_of(rule), keep_unused=True).lower(*[row] * count)
    return Formula(lowered.as_text(dialect="stablehlo"), slots, scalars)


def numbers_of(rule: UpdateRule, scalars: Any, step: jax.Array) -> tuple[jax.Array, ...]:
    """Returns what a formula takes beside rows: the learning rate of this step, and the scalars.

    Args:
      rule: the rule.
      scalars: as in the state, by name.
      step: int32 [], updates made before this one.
    """
    rate: Any = rule.learning_rate
    rate = rate(step) if callable(rate) else rate
    held = (scalars[name] for name in rule.scalars)
    return tuple(jnp.asarray(number).astype(jnp.float32) for number in (rate, *held))
