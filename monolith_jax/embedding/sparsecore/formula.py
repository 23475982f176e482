"""A rule's formula as a program of its own, which the SparseCores run on each touched row."""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp

from monolith_jax.embedding._formula import step_of
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
