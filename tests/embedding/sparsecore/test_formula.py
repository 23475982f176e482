"""A rule's program for SparseCores: the rule's own formula, TF's up to its last digits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding._formula import numbers_of, step_of
from monolith_jax.embedding.sparsecore.formula import formula_of
from monolith_jax.optimizers import Adagrad, Ftrl, LazyAdam, Momentum, RMSProp, Sgd

RULES = [
    Sgd(learning_rate=0.1),
    Adagrad(learning_rate=0.1, initial_accumulator_value=1e-8),
    Momentum(learning_rate=0.1, momentum=0.9, use_nesterov=True),
    RMSProp(learning_rate=0.1, momentum=0.5, centered=True),
    LazyAdam(learning_rate=0.1),
    Ftrl(learning_rate=0.1, l1_regularization_strength=0.1, l2_regularization_strength=0.1),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_the_formula_is_the_rules(rule: Any) -> None:
    rng = np.random.default_rng(0)
    g, v = (jnp.asarray(rng.normal(size=(5, 8)).astype(np.float32)) for _ in range(2))
    slots = {n: s + 0.01 for n, s in rule.init_slots((5, 8)).items()}
    scalars = {n: jnp.float32(x) for n, x in rule.scalars.items()}
    step = jnp.int32(3)
    delta, new = rule.update(g, v, slots, scalars, step, rows=True)
    wide = [jnp.broadcast_to(n, g.shape) for n in numbers_of(rule, scalars, step)]
    found = step_of(rule)(g, v, *slots.values(), *wide)
    for want, got in zip((v + delta, *new.values()), found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_adagrad_is_tfs_without_an_epsilon() -> None:
    """w - (lr * g) / sqrt(a + g * g), the accumulator starting where the table says."""
    text = formula_of(Adagrad(learning_rate=0.1), 8).text
    operations = [
        line.split("stablehlo.")[1].split()[0] for line in text.splitlines() if "stablehlo." in line
    ]
    assert sorted(operations) == ["add", "add", "divide", "multiply", "multiply", "negate", "sqrt"]
    assert "constant" not in text


def test_a_schedule_is_asked_for_the_step() -> None:
    rule = Sgd(learning_rate=lambda step: jnp.float32(1.0) / (step + 1).astype(jnp.float32))
    rate = jax.jit(lambda step: numbers_of(rule, {}, step)[0])(jnp.int32(3))
    assert float(rate) == 0.25


def test_every_argument_stays_in_the_program() -> None:
    """The operation passes gradient, value, slots and numbers, whether a rule reads them or not."""
    for rule in RULES:
        formula = formula_of(rule, 8)
        (main,) = (line for line in formula.text.splitlines() if "@main" in line)
        want = 2 + len(formula.slots) + 1 + len(formula.scalars)
        assert main.split("->")[0].count("tensor<1x8xf32>") == want
