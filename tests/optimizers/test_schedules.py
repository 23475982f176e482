import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from monolith_jax import config
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import (
    Adam,
    CosineDecay,
    ExponentialDecay,
    PiecewiseConstant,
    PolynomialDecay,
    Schedule,
    Sgd,
    Warmup,
    as_optax,
    optimizers,
)

STEPS = [0, 1, 2, 99, 100, 101, 250, 999, 1_000, 2_345, 10_000]


def tf_rates(tf, make):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.placeholder(tf.int32, [])
        rate = make(tf.compat.v1.train, step)
        return [session.run(rate, {step: s}) for s in STEPS]


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        (
            PiecewiseConstant(boundaries=(100, 1_000), values=(0.5, 0.25, 0.1)),
            lambda t, s: t.piecewise_constant(s, [100, 1_000], [0.5, 0.25, 0.1]),
        ),
        (
            ExponentialDecay(initial=0.1, decay_steps=100, decay_rate=0.9),
            lambda t, s: t.exponential_decay(0.1, s, 100, 0.9),
        ),
        (
            ExponentialDecay(initial=0.1, decay_steps=100, decay_rate=0.9, staircase=True),
            lambda t, s: t.exponential_decay(0.1, s, 100, 0.9, staircase=True),
        ),
        (
            PolynomialDecay(initial=0.1, decay_steps=1_000, end=0.01, power=2.0),
            lambda t, s: t.polynomial_decay(0.1, s, 1_000, 0.01, power=2.0),
        ),
        (
            PolynomialDecay(initial=0.1, decay_steps=100, end=0.01, cycle=True),
            lambda t, s: t.polynomial_decay(0.1, s, 100, 0.01, cycle=True),
        ),
        (
            CosineDecay(initial=0.1, decay_steps=1_000, alpha=0.1),
            lambda t, s: t.cosine_decay(0.1, s, 1_000, alpha=0.1),
        ),
    ],
    ids=["piecewise", "exponential", "staircase", "polynomial", "cycle", "cosine"],
)
def test_rates_are_those_of_tf(tf, schedule, theirs):
    ours = [jax.jit(schedule)(s) for s in STEPS]
    np.testing.assert_allclose(ours, tf_rates(tf, theirs), rtol=1e-5)


def test_warmup_hands_over_to_a_schedule_that_starts_at_zero():
    then = ExponentialDecay(initial=1.0, decay_steps=1, decay_rate=0.5)
    rate = Warmup(steps=2, then=then)
    assert [float(rate(s)) for s in range(5)] == [0.5, 1.0, 1.0, 0.5, 0.25]


def test_a_schedule_gets_the_number_of_updates_made_before():
    optimizer = as_optax(Sgd(learning_rate=PiecewiseConstant(boundaries=(0,), values=(1.0, 2.0))))
    state, moves = optimizer.init(jnp.zeros(1)), []
    for _ in range(3):
        updates, state = optimizer.update(jnp.ones(1), state)
        moves.append(float(updates[0]))
    assert moves == [-1.0, -2.0, -2.0]


def test_any_function_of_the_step_is_a_schedule():
    # optax's own schedules mix integers and floats, which this suite forbids elsewhere.
    standard = jax.numpy_dtype_promotion("standard")
    ours = optimizers["adam"](learning_rate=standard(optax.cosine_decay_schedule(0.1, 10)))
    theirs = optimizers["adam"](learning_rate=CosineDecay(initial=0.1, decay_steps=10))
    state, other = ours.init(jnp.zeros(3)), theirs.init(jnp.zeros(3))
    for _ in range(4):
        a, state = ours.update(jnp.ones(3), state)
        b, other = theirs.update(jnp.ones(3), other)
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("kind", Schedule.choices().values(), ids=Schedule.choices())
def test_schedules_are_configs(kind):
    rule = Adam(learning_rate=kind())
    assert config.from_dict(config.to_dict(rule)) == rule
    assert hash(rule) == hash(Adam(learning_rate=kind()))
    assert rule.learning_rate(3).dtype == jnp.float32


def test_the_command_line_picks_and_sets_a_schedule():
    rule = config.override(
        Adam(), {"learning_rate": "exponential", "learning_rate.decay_steps": "50"}
    )
    assert rule.learning_rate == ExponentialDecay(decay_steps=50)
    assert config.override(rule, {"learning_rate": "0.5"}).learning_rate == 0.5
    with pytest.raises(ConfigError, match="did you mean exponential"):
        config.override(Adam(), {"learning_rate": "exponental"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PiecewiseConstant(boundaries=(1,), values=(1.0,)), "1 values and 1 boundaries"),
        (lambda: PiecewiseConstant(boundaries=(5, 1), values=(1.0, 1.0, 1.0)), "must increase"),
        (lambda: ExponentialDecay(decay_steps=0), "decay_steps"),
        (lambda: PolynomialDecay(decay_steps=0), "decay_steps"),
        (lambda: CosineDecay(decay_steps=-1), "decay_steps"),
        (lambda: Warmup(steps=0), "steps"),
    ],
)
def test_wrong_schedules_say_so(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
