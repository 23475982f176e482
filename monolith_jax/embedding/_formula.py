"""A rule's formula as a function of one row, for kernels and SparseCores, which run it by row."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.optimizers import UpdateRule


def step_of(rule: UpdateRule, number: Any = 0) -> Any:
    """Returns one step of a rule as a function of arrays alone; it is elementwise.

    It takes the gradient, the values, the slots, the learning rate and the rule's scalars, and
    returns values and slots.

    It is `UpdateRule.update` on rows, with `exact=False`: without the detours by which exact rules
    keep XLA:CPU from merging operations. They mean nothing to a SparseCore, where values may differ
    from TensorFlow's by a few units in the last place, and kernels on CPUs merge none.

    Args:
      rule: the rule.
      number: int32 [], updates made before; for formulas that ask for more than their rate.

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
        delta, new = told.update(gradient, value, held, names, number, rows=True)
        return (value + delta, *(new[name] for name in slots))

    return step


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
