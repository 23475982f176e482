"""An update rule as an `optax.GradientTransformation` over a tree of dense parameters."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from monolith_jax.errors import ConfigError
from monolith_jax.optimizers._arithmetic import wide_enough
from monolith_jax.optimizers._rule import Arrays, UpdateRule


class RuleState(NamedTuple):
    """The state of a rule over a tree of parameters.

    Attributes:
      count: int32 [], updates made so far.
      scalars: the rule's numbers by name (Adam's powers), float32 [].
      slots: by slot name, a tree like the parameters, float32 (float64 beside float64).
    """

    count: jax.Array  # type: ignore[assignment]  # as in optax's states
    scalars: dict[str, jax.Array]
    slots: dict[str, Any]


@dataclass(frozen=True)
class _Change:
    """What the rule made of one parameter; no pytree, so that a tree of them has them as leaves."""

    delta: jax.Array
    slots: Arrays


def _slot(name: str) -> Callable[[_Change], jax.Array]:
    return lambda change: change.slots[name]


def as_optax(rule: UpdateRule) -> optax.GradientTransformation:
    """Returns `rule` as a transformation that composes with all of optax.

    The updates have the parameters' dtypes; slots are float32 at least, beside bfloat16
    parameters too. Donate parameters and state to the jitted step: without that an update of
    50 M parameters takes four to eight times as long on CPU. `MULTI_OUTPUT_FUSION` in `XLA_FLAGS`
    makes one loop over memory of it there.

    Args:
      rule: any update rule.

    Returns:
      A transformation whose state is a `RuleState`. Its `update` needs `params` only for rules
      that read the value (Ftrl) and for float16 or bfloat16 gradients of float32 parameters.

    Example:
      >>> import optax
      >>> from monolith_jax.optimizers import Momentum
      >>> decayed = optax.chain(optax.add_decayed_weights(0.1), as_optax(Momentum()))
      >>> state = decayed.init({"w": jnp.ones(3)})
      >>> list(state[1].slots)
      ['momentum']
    """

    def init(params: optax.Params) -> RuleState:
        slots = {
            slot.name: jax.tree.map(
                lambda p, slot=slot: jnp.full(slot.shape(p.shape), slot.init, wide_enough(p.dtype)),
                params,
            )
            for slot in rule.slots
        }
        scalars = {name: jnp.asarray(x, jnp.float32) for name, x in rule.scalars.items()}
        return RuleState(jnp.zeros([], jnp.int32), scalars, slots)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        assert isinstance(state, RuleState)
        if params is None:
            if rule.reads_value:
                raise ConfigError(
                    f"{type(rule).__name__} needs params: update(grads, state, params)"
                )
            params = updates  # Read for shape and dtype alone.
        names = [slot.name for slot in rule.slots]

        def one(gradient: jax.Array, value: jax.Array, *slots: jax.Array) -> _Change:
            mine = dict(zip(names, slots, strict=True))
            step = state.count
            return _Change(*rule.update(gradient, value, mine, state.scalars, step, rows=False))

        changes = jax.tree.map(one, updates, params, *(state.slots[name] for name in names))
        slots = {name: jax.tree.map(_slot(name), changes) for name in names}
        count = optax.safe_increment(state.count)
        new = RuleState(count, rule.advance(state.scalars), slots)
        return jax.tree.map(operator.attrgetter("delta"), changes), new

    return optax.GradientTransformation(init, update)
