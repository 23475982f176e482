"""The rules as optax transformations: composed, masked, sharded, in every dtype."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import (
    Adam,
    Ftrl,
    Momentum,
    RuleState,
    Sgd,
    UpdateRule,
    as_optax,
    optimizers,
)

NAMES = tuple(optimizers)
ARGUMENTS = {name: {"learning_rate": 0.1} for name in NAMES} | {
    "momentum": {"learning_rate": 0.1, "momentum": 0.9}
}


def make(name):
    return optimizers[name](**ARGUMENTS[name])


def params():
    return {"a": jnp.ones((4, 3)), "b": {"c": jnp.arange(5.0), "d": jnp.float32(2.0)}}


def gradients():
    return jax.tree.map(lambda p: jnp.cos(p) + 1, params())


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_a_loss(name):
    optimizer, target = make(name), jnp.asarray([1.0, -2.0, 0.5])

    @jax.jit
    def step(value, state):
        loss, gradient = jax.value_and_grad(lambda w: jnp.sum((w - target) ** 2))(value)
        updates, state = optimizer.update(gradient, state, value)
        return optax.apply_updates(value, updates), state, loss

    value, losses = jnp.zeros(3), []
    state = optimizer.init(value)
    for _ in range(100):
        value, state, loss = step(value, state)
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_state_names_its_slots_and_counts(name):
    optimizer = make(name)
    state = optimizer.init(params())
    updates, after = jax.jit(optimizer.update)(gradients(), state, params())
    assert isinstance(after, RuleState)
    assert after.count == 1
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params())
    rule = UpdateRule.choices()[name]()
    assert set(after.slots) == {slot.name for slot in rule.slots}


@pytest.mark.parametrize("name", NAMES)
def test_inject_hyperparams_gives_the_same_and_lets_them_change(name):
    injected = optax.inject_hyperparams(optimizers[name])(**ARGUMENTS[name])
    state, plain = injected.init(params()), make(name)
    other = plain.init(params())
    step = jax.jit(injected.update)
    for _ in range(2):
        ours, state = step(gradients(), state, params())
        theirs, other = jax.jit(plain.update)(gradients(), other, params())
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)
    state.hyperparams["learning_rate"] = jnp.float32(0.0)
    if name not in ("ftrl", "rmsprop"):  # Ftrl divides by it; RMSProp keeps it in its momentum.
        still, _ = step(gradients(), state, params())
        assert all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(still))


def test_inject_hyperparams_takes_schedules_and_every_number():
    injected = optax.inject_hyperparams(optimizers["adam"])(
        learning_rate=optax.linear_schedule(0.1, 0.0, 10), beta1=0.8
    )
    state = injected.init(params())
    _, state = injected.update(gradients(), state, params())
    assert set(state.hyperparams) >= {"learning_rate", "beta1", "beta2", "epsilon"}


@pytest.mark.parametrize("name", NAMES)
def test_multi_transform_updates_each_group_by_its_own_rule(name):
    labels = {"a": "ours", "b": {"c": "sgd", "d": "sgd"}}
    both = optax.multi_transform(
        {"ours": make(name), "sgd": as_optax(Sgd(learning_rate=1.0))}, labels
    )
    updates, _ = both.update(gradients(), both.init(params()), params())
    alone = make(name)
    expected, _ = alone.update(gradients()["a"], alone.init(params()["a"]), params()["a"])
    np.testing.assert_array_equal(updates["a"], expected)
    np.testing.assert_array_equal(updates["b"]["c"], -gradients()["b"]["c"])


@pytest.mark.parametrize("name", NAMES)
def test_masked_leaves_the_rest_alone(name):
    optimizer = optax.masked(make(name), {"a": True, "b": {"c": False, "d": False}})
    updates, state = optimizer.update(gradients(), optimizer.init(params()), params())
    np.testing.assert_array_equal(updates["b"]["c"], gradients()["b"]["c"])
    assert not np.array_equal(updates["a"], gradients()["a"])
    for slot in state.inner_state.slots.values():
        assert len(jax.tree.leaves(slot)) == 1


def test_weight_decay_by_composition():
    decayed = optax.chain(optax.add_decayed_weights(0.1), as_optax(Momentum(learning_rate=0.5)))
    updates, _ = decayed.update(gradients(), decayed.init(params()), params())
    by_hand = jax.tree.map(lambda g, p: -0.5 * (g + 0.1 * p), gradients(), params())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, by_hand)

    decoupled = optax.chain(as_optax(Adam(learning_rate=0.1)), optax.add_decayed_weights(-0.01))
    updates, _ = decoupled.update(gradients(), decoupled.init(params()), params())
    plain, _ = as_optax(Adam(learning_rate=0.1)).update(
        gradients(), as_optax(Adam()).init(params()), params()
    )
    expected = jax.tree.map(lambda u, p: u - 0.01 * p, plain, params())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_parameters_keep_float32_slots(name):
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params())
    slopes = jax.tree.map(lambda g: g.astype(jnp.bfloat16), gradients())
    optimizer = make(name)
    state = optimizer.init(half)
    updates, state = jax.jit(optimizer.update)(slopes, state, half)
    new = optax.apply_updates(half, updates)
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype(jnp.bfloat16)}
    assert {s.dtype for s in jax.tree.leaves(state.slots)} <= {jnp.dtype(jnp.float32)}
    full = jax.tree.map(lambda p: p.astype(jnp.float32), half)
    wide = jax.tree.map(lambda g: g.astype(jnp.float32), slopes)
    expected, _ = optimizer.update(wide, optimizer.init(full), full)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(
            a.astype(jnp.float32), b.astype(jnp.bfloat16).astype(jnp.float32)
        ),
        updates,
        expected,
    )


@pytest.mark.parametrize("name", NAMES)
def test_float64_parameters_are_updated_in_float64(name):
    with jax.enable_x64(True):
        value = jnp.asarray(np.linspace(1, 2, 6).reshape(2, 3))
        optimizer = make(name)
        state = optimizer.init(value)
        updates, state = jax.jit(optimizer.update)(jnp.cos(value), state, value)
        assert updates.dtype == jnp.float64
        assert {s.dtype for s in jax.tree.leaves(state.slots)} <= {jnp.dtype(jnp.float64)}
        single, _ = optimizer.update(
            jnp.cos(value).astype(jnp.float32),
            optimizer.init(value.astype(jnp.float32)),
            value.astype(jnp.float32),
        )
        np.testing.assert_allclose(np.asarray(updates), np.asarray(single), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_sharded_update_equals_an_unsharded_one(name):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    value = jnp.asarray(np.linspace(-1, 1, 64, dtype=np.float32).reshape(16, 4))
    optimizer = make(name)
    plain, _ = jax.jit(optimizer.update)(jnp.sin(value), optimizer.init(value), value)
    placed = jax.device_put(value, spec)
    state = jax.jit(optimizer.init)(placed)
    split, state = jax.jit(optimizer.update)(jnp.sin(placed), state, placed)
    assert split.sharding.is_equivalent_to(spec, 2)
    np.testing.assert_array_equal(split, plain)


@pytest.mark.parametrize("name", NAMES)
def test_a_donated_step_updates_in_place(name):
    optimizer = make(name)

    def step(value, state, gradient):
        updates, state = optimizer.update(gradient, state, value)
        return optax.apply_updates(value, updates), state

    value = jnp.ones((256, 128))
    compiled = (
        jax.jit(step, donate_argnums=(0, 1)).lower(value, optimizer.init(value), value).compile()
    )
    memory = compiled.memory_analysis()
    assert not re.search(r"f32\[256,128\]\S* copy\(", compiled.as_text())
    assert memory.temp_size_in_bytes < value.nbytes // 16
    assert memory.alias_size_in_bytes >= value.nbytes


def test_rules_that_read_no_value_need_no_params():
    optimizer = as_optax(Adam(learning_rate=0.1))
    without, _ = optimizer.update(gradients(), optimizer.init(params()))
    given, _ = optimizer.update(gradients(), optimizer.init(params()), params())
    jax.tree.map(np.testing.assert_array_equal, without, given)


def test_ftrl_says_that_it_needs_params():
    optimizer = as_optax(Ftrl())
    with pytest.raises(ConfigError, match="Ftrl needs params"):
        optimizer.update(gradients(), optimizer.init(params()))


def test_a_transformation_can_be_differentiated_through():
    # Rounding products by their bits must not cut the derivative: meta-learning goes through it.
    def after_two_steps(rate):
        optimizer, value = as_optax(Momentum(learning_rate=rate)), jnp.asarray([1.0, 2.0])
        state = optimizer.init(value)
        for _ in range(2):
            updates, state = optimizer.update(2 * value, state, value)
            value = optax.apply_updates(value, updates)
        return jnp.sum(value)

    slope = jax.grad(after_two_steps)(0.1)
    numeric = (after_two_steps(0.1 + 1e-2) - after_two_steps(0.1 - 1e-2)) / 2e-2
    np.testing.assert_allclose(slope, numeric, rtol=1e-2)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad", "rmsprop"])
def test_optax_can_map_over_the_slots_that_mirror_parameters(name):
    optimizer = make(name)
    state = optimizer.init(params())
    marked = optax.tree_utils.tree_map_params(optimizer, lambda s: s + 1, state)
    for slot in state.slots:
        before, after = (jax.tree.leaves(s.slots[slot]) for s in (state, marked))
        assert all(bool((b + 1 == a).all()) for b, a in zip(before, after, strict=True))
    assert marked.count == state.count


def test_nested_maps_are_trees_like_any_other():
    nested_map = pytest.importorskip("monolith_jax.nested_map")
    value = nested_map.NestedMap(a=jnp.ones(2), b=nested_map.NestedMap(c=jnp.ones(3)))
    optimizer = as_optax(Adam(learning_rate=0.1))
    updates, state = optimizer.update(value, optimizer.init(value), value)
    assert isinstance(updates, nested_map.NestedMap)
    assert isinstance(state.slots["m"], nested_map.NestedMap)
    np.testing.assert_allclose(updates.b.c, -0.1, rtol=1e-5)


def test_every_constructor_takes_locking_and_a_name():
    for name, constructor in optimizers.items():
        parameters = inspect.signature(constructor).parameters
        assert {"use_locking", "name", "exact"} <= set(parameters)
        constructor(**ARGUMENTS[name], use_locking=True, name="Mine")
