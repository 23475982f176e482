"""What every rule promises: a config, checked arguments, one formula on rows and dense."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax import config
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import (
    Adagrad,
    Adam,
    Ftrl,
    Momentum,
    RMSProp,
    RowwiseAdagrad,
    Sgd,
    Slot,
    UpdateRule,
)

RULES = UpdateRule.choices()


@pytest.fixture(params=RULES, ids=list(RULES))
def rule(request):
    return RULES[request.param]()


def case(rule, shape=(6, 4), dtype=jnp.float32):
    rng = np.random.default_rng(3)
    value, gradient = (jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))
    return gradient, value, rule.init_slots(shape), rule.scalars


def test_choices_are_by_name():
    assert list(RULES) == [
        "adagrad",
        "adam",
        "lazy_adam",
        "ftrl",
        "momentum",
        "rmsprop",
        "rowwise_adagrad",
        "sgd",
    ]
    assert list(Adam.choices()) == ["adam"]


def test_a_rule_is_data(rule):
    assert config.from_dict(config.to_dict(rule)) == rule
    assert hash(rule.replace()) == hash(rule)
    assert rule.replace(learning_rate=0.123) != rule
    assert all(info.doc for info in config.describe(rule))


def test_the_command_line_switches_rules():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Holder(config.Config):
        optimizer: UpdateRule = config.field(Adagrad(), doc="The rule.")

    held = config.override(
        Holder(), {"optimizer": "rmsprop", "optimizer.centered": "true", "optimizer.decay": "0.5"}
    )
    assert held.optimizer == RMSProp(centered=True, decay=0.5)
    with pytest.raises(ConfigError, match="did you mean momentum"):
        config.override(Holder(), {"optimizer": "momentun"})


def test_slots_start_at_their_value(rule):
    for slot in rule.slots:
        array = rule.init_slots((6, 4), jnp.bfloat16)[slot.name]
        assert array.shape == ((6, 1) if slot.per_row else (6, 4))
        assert array.dtype == jnp.bfloat16
        assert bool((array == jnp.bfloat16(slot.init)).all())


def test_starts_are_tfs():
    starts = {name: {slot.name: slot.init for slot in kind().slots} for name, kind in RULES.items()}
    assert starts["adagrad"] == {"accumulator": 0.1}
    assert starts["momentum"] == {"momentum": 0.0}
    assert starts["rmsprop"] == {"ms": 1.0, "momentum": 0.0}
    assert starts["adam"] == starts["lazy_adam"] == {"m": 0.0, "v": 0.0}
    assert starts["ftrl"] == {"accumulator": 0.1, "linear": 0.0}
    assert [s.name for s in RMSProp(centered=True).slots] == ["ms", "mg", "momentum"]


def test_only_tfs_adam_touches_all_rows():
    assert [name for name, kind in RULES.items() if kind.touches_all_rows] == ["adam"]


def test_rows_and_dense_are_the_same_formula(rule):
    # Two orders of rounding, one rule: a few units in the last place apart in five steps.
    dense = rows = case(rule)[1]
    dense_slots = rows_slots = case(rule)[2]
    scalars = rule.scalars
    for step in range(5):
        gradient = case(rule)[0] * jnp.float32(step - 2)
        delta, dense_slots = rule.update(gradient, dense, dense_slots, scalars, step, rows=False)
        dense = dense + delta
        delta, rows_slots = rule.update(gradient, rows, rows_slots, scalars, step, rows=True)
        rows, scalars = rows + delta, rule.advance(scalars)
    np.testing.assert_allclose(dense, rows, rtol=1e-5, atol=1e-6)
    for name in dense_slots:
        np.testing.assert_allclose(dense_slots[name], rows_slots[name], rtol=1e-5, atol=1e-7)


def test_rows_do_not_see_each_other(rule):
    gradient, value, slots, scalars = case(rule)
    all_rows, _ = rule.update(gradient, value, slots, scalars, 0, rows=True)
    two = {name: slot[2:4] for name, slot in slots.items()}
    some, _ = rule.update(gradient[2:4], value[2:4], two, scalars, 0, rows=True)
    np.testing.assert_array_equal(all_rows[2:4], some)


@pytest.mark.parametrize("value_type", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("gradient_type", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("slot_type", [jnp.bfloat16, jnp.float32])
def test_dtypes_are_kept_and_computed_in_float32(rule, value_type, gradient_type, slot_type):
    gradient, value, slots, scalars = case(rule)
    gradient, value = gradient.astype(gradient_type), value.astype(value_type)
    slots = {name: slot.astype(slot_type) for name, slot in slots.items()}
    delta, new = jax.jit(lambda *a: rule.update(*a, rows=True))(gradient, value, slots, scalars, 0)
    assert delta.dtype == value_type
    assert {slot.dtype for slot in new.values()} <= {jnp.dtype(slot_type)}
    wide = {name: slot.astype(jnp.float32) for name, slot in slots.items()}
    expected, _ = rule.update(
        gradient.astype(jnp.float32), value.astype(jnp.float32), wide, scalars, 0, rows=True
    )
    np.testing.assert_allclose(
        delta.astype(jnp.float32),
        expected.astype(value_type).astype(jnp.float32),
        rtol=2 * float(jnp.finfo(value_type).eps),
    )


def test_adams_parts_are_its_update():
    rule = Adam(learning_rate=0.1)
    gradient, value, slots, scalars = case(rule)
    slots = {"m": value * 0.1, "v": value * value}
    delta, new = rule.update(gradient, value, slots, scalars, 0, rows=True)
    decayed, more = rule.decay_all(slots, 0), rule.additions(gradient, 0)
    parts = {name: decayed[name] + more[name] for name in decayed}
    for name in new:
        np.testing.assert_array_equal(parts[name], new[name])
    np.testing.assert_array_equal(rule.move_all(value, parts, scalars, 0), delta)


def test_adams_powers_advance_in_float32():
    scalars = Adam(beta1=0.9, beta2=0.999).scalars
    expected = np.float32(0.9)
    for _ in range(100):
        scalars = Adam().advance(scalars)
        expected = expected * np.float32(0.9)
    assert scalars["beta1_power"] == expected
    assert scalars["beta1_power"].dtype == jnp.float32


def test_a_slot_beside_a_scalar_is_a_scalar():
    assert Slot("a", 0.0, "A", per_row=True).shape(()) == ()
    assert Slot("a", 0.0, "A", per_row=True).shape((7,)) == (1,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Adagrad(initial_accumulator_value=0.0),
            "initial_accumulator_value must be above 0",
        ),
        (
            lambda: Ftrl(initial_accumulator_value=-1.0),
            "initial_accumulator_value must be at least",
        ),
        (lambda: Ftrl(learning_rate_power=0.5), "learning_rate_power must be at most 0"),
        (lambda: Ftrl(l1_regularization_strength=-1.0), "l1_regularization_strength must be"),
        (lambda: RowwiseAdagrad(epsilon=-1.0), "epsilon must be at least 0"),
        (lambda: Momentum(learning_rate="fast"), "learning_rate must be a number or a schedule"),
        (lambda: Sgd(learning_rate=None), "learning_rate must be a number or a schedule"),
        (lambda: Sgd(learning_rate=np.ones(3)), "learning_rate must be a number or a schedule"),
    ],
)
def test_wrong_hyperparameters_say_so(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_wrong_shapes_say_so():
    rule = Adagrad()
    slots = rule.init_slots((3, 2))
    with pytest.raises(ValueError, match=r"gradient \(3, 1\) for a value \(3, 2\)"):
        rule.update(jnp.ones((3, 1)), jnp.ones((3, 2)), slots, {}, 0, rows=True)
    with pytest.raises(ValueError, match=r"expected slots of shapes .*accumulator"):
        rule.update(jnp.ones((3, 2)), jnp.ones((3, 2)), {}, {}, 0, rows=True)


def test_a_rule_of_ones_own_joins_the_choices():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class SignSgd(UpdateRule, choice="test_sign_sgd"):
        def _formula(self, at, g, w, slots, scalars, rows):
            return jnp.sign(g) * at.rate(self.learning_rate), {}

    try:
        made = UpdateRule.choices()["test_sign_sgd"](learning_rate=0.5)
        delta, _ = made.update(jnp.asarray([3.0, -2.0]), jnp.zeros(2), {}, {}, 0, rows=False)
        assert delta.tolist() == [-0.5, 0.5]
    finally:
        del UpdateRule._named["test_sign_sgd"]
