"""A thousand steps against TensorFlow's own optimizers, dense and on rows, every option."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from monolith_jax.optimizers import UpdateRule, optimizers

Spec = tuple[str, dict[str, Any], float]
ULPS = 4.0


def grid(rule: str, **options: tuple[Any, ...]) -> dict[str, Spec]:
    """Every combination of the options, on gradients of scale 1 and 1e-4, by a readable id."""
    specs = {}
    for values in itertools.product(*options.values()):
        kwargs = dict(zip(options, values, strict=True))
        for scale in (1.0, 1e-4):
            text = ",".join(f"{key}={value}" for key, value in kwargs.items())
            specs[f"{rule}({text})*{scale:g}"] = (rule, kwargs, scale)
    return specs


ONE_PRODUCT = {  # Rules whose arithmetic TF and XLA can do alike, up to the last bit.
    **grid("momentum", learning_rate=(0.01,), momentum=(0.5, 0.9), use_nesterov=(False, True)),
    **grid(
        "rmsprop",
        learning_rate=(0.01,),
        decay=(0.9, 0.99),
        momentum=(0.0, 0.9),
        epsilon=(1e-10, 1e-3),
        centered=(False, True),
    ),
    **grid(
        "adam",
        learning_rate=(0.01,),
        beta1=(0.9, 0.5),
        beta2=(0.999, 0.9),
        epsilon=(1e-10, 1e-8, 1e-3),
    ),
}
SGD = grid("sgd", learning_rate=(0.05,))
ADAGRAD = grid("adagrad", learning_rate=(0.05,), initial_accumulator_value=(1e-6, 0.1, 1.0))
FTRL = {
    **grid("ftrl", learning_rate=(0.05,), initial_accumulator_value=(1e-6, 0.1, 1.0)),
    **grid("ftrl", learning_rate=(0.05,), learning_rate_power=(-0.3, 0.0)),
    **grid("ftrl", learning_rate=(0.05,), l1_regularization_strength=(0.5,)),
    **grid("ftrl", learning_rate=(0.05,), l2_regularization_strength=(0.1,)),
    **grid(
        "ftrl",
        learning_rate=(0.05,),
        l1_regularization_strength=(0.5,),
        l2_regularization_strength=(0.1,),
        l2_shrinkage_regularization_strength=(0.01,),
        beta=(0.0, 1.0),
    ),
}
SPECS = SGD | ADAGRAD | ONE_PRODUCT | FTRL
# TF subtracts the duplicates of a row one after the other in plain SGD alone.
ON_ROWS = ADAGRAD | ONE_PRODUCT | FTRL


def rule_of(key: str) -> UpdateRule:
    rule, kwargs, _ = SPECS[key]
    return UpdateRule.choices()[rule](**kwargs)


def slot_names(key: str) -> list[str]:
    return [slot.name for slot in rule_of(key).slots]


def dense_program():
    """Returns (init, step): one jitted program that trains every case, step by step."""
    made = {key: optimizers[rule](**kwargs) for key, (rule, kwargs, _) in SPECS.items()}

    def init(value):
        params = {key: jnp.array(value) for key in SPECS}
        return params, {key: made[key].init(params[key]) for key in SPECS}

    def step(carry, gradients):
        params, states = carry
        new, new_states = {}, {}
        for key, (_, _, scale) in SPECS.items():
            updates, new_states[key] = made[key].update(gradients[scale], states[key], params[key])
            new[key] = optax.apply_updates(params[key], updates)
        return new, new_states

    return init, step


def scaled(dense):
    return {scale: dense * np.float32(scale) for scale in (1.0, 1e-4)}


@pytest.fixture(scope="module")
def dense(gradients):
    init, step = dense_program()
    carry, step = init(gradients.value), jax.jit(step, donate_argnums=0)
    for gradient in gradients.dense:
        carry = step(carry, scaled(gradient))
    return {key: {"value": carry[0][key], **carry[1][key].slots} for key in SPECS}


@pytest.fixture(scope="module")
def tf_dense(tf1_states, gradients):
    return tf1_states({k: (*SPECS[k], slot_names(k)) for k in SPECS}, gradients, sparse=False)


def row_step(rule, table, scalars, step, rows, gradient):
    """One update of a table by the touched rows, in plain indexing."""
    value, slots = table["value"], {slot.name: table[slot.name] for slot in rule.slots}
    if rule.touches_all_rows:
        more = rule.additions(gradient, step)
        slots = rule.decay_all(slots, step)
        slots = {k: slot.at[rows].add(more[k], mode="drop") for k, slot in slots.items()}
        return {"value": value + rule.move_all(value, slots, scalars, step), **slots}
    mine = {k: slot.at[rows].get(mode="fill", fill_value=1) for k, slot in slots.items()}
    old = value.at[rows].get(mode="fill", fill_value=0)
    delta, new = rule.update(gradient, old, mine, scalars, step, rows=True)
    new = {"value": old + delta, **new}
    return {k: table[k].at[rows].set(new[k], mode="drop") for k in table}


@pytest.fixture(scope="module")
def sparse(gradients):
    rules = {key: rule_of(key) for key in ON_ROWS}
    start = jnp.asarray(gradients.value)
    tables = {k: {"value": start, **r.init_slots(start.shape)} for k, r in rules.items()}
    scalars = {k: {n: np.float32(x) for n, x in r.scalars.items()} for k, r in rules.items()}

    @jax.jit
    def update(tables, scalars, step, rows, summed):
        new = {
            k: row_step(rules[k], tables[k], scalars[k], step, rows, summed[SPECS[k][2]])
            for k in ON_ROWS
        }
        return new, {k: rules[k].advance(scalars[k]) for k in ON_ROWS}

    for step in range(len(gradients.rows)):
        rows, one = gradients.deduplicated(step)
        summed = {1.0: one, 1e-4: gradients.deduplicated(step, 1e-4)[1]}
        tables, scalars = update(tables, scalars, np.int32(step), rows, summed)
    return tables


@pytest.fixture(scope="module")
def tf_sparse(tf1_states, gradients):
    return tf1_states({k: (*SPECS[k], slot_names(k)) for k in ON_ROWS}, gradients, sparse=True)


def ulps(ours, theirs) -> float:
    """The largest difference in units in the last place of the largest value."""
    spacing = np.spacing(np.max(np.abs(theirs)))
    return float(np.max(np.abs(np.asarray(ours, np.float64) - theirs)) / spacing)


def moved(state, gradients) -> None:
    assert not np.array_equal(state["value"], gradients.value), "the oracle did not train"


@pytest.mark.parametrize("key", [k for k in SPECS if k not in FTRL])
def test_dense_is_within_four_ulps_of_tf(key, dense, tf_dense, gradients):
    moved(tf_dense[key], gradients)
    for name, theirs in tf_dense[key].items():
        assert ulps(dense[key][name], theirs) <= ULPS, name


@pytest.mark.parametrize("key", ADAGRAD | ONE_PRODUCT)
def test_rows_are_within_four_ulps_of_tf(key, sparse, tf_sparse, gradients):
    moved(tf_sparse[key], gradients)
    for name, theirs in tf_sparse[key].items():
        assert ulps(sparse[key][name], theirs) <= ULPS, name


@pytest.mark.parametrize("key", SGD | ONE_PRODUCT)
def test_dense_has_the_bits_of_tf(key, dense, tf_dense):
    for name, theirs in tf_dense[key].items():
        np.testing.assert_array_equal(dense[key][name], theirs, err_msg=name)


@pytest.mark.parametrize("key", [k for k in ONE_PRODUCT if not k.startswith("rmsprop")])
def test_rows_have_the_bits_of_tf(key, sparse, tf_sparse):
    for name, theirs in tf_sparse[key].items():
        np.testing.assert_array_equal(sparse[key][name], theirs, err_msg=name)


@pytest.mark.parametrize("key", [k for k in FTRL if "power=-0.3" not in k])
def test_ftrl_is_close_to_tf(key, dense, tf_dense, sparse, tf_sparse, gradients):
    moved(tf_dense[key], gradients)
    for ours, theirs in ((dense[key], tf_dense[key]), (sparse[key], tf_sparse[key])):
        for name in theirs:
            # Its value is a quotient with a sum of a thousand rounded terms in it.
            assert ulps(ours[name], theirs[name]) <= 12, name
        np.testing.assert_array_equal(np.asarray(ours["value"]) == 0, theirs["value"] == 0)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_ftrl_with_another_power_is_as_close_to_the_truth_as_tf(scale, dense, tf_dense, gradients):
    # TF's power function is Eigen's, ours XLA's, and differences of powers cancel: neither is
    # right to the last bits, so both are held against float64.
    (key,) = (k for k in FTRL if "power=-0.3" in k and FTRL[k][2] == scale)
    rate, power, start = (np.float64(np.float32(x)) for x in (0.05, 0.3, 0.1))
    w, n, z = gradients.value.astype(np.float64), np.full((24, 4), start), np.zeros((24, 4))
    for gradient in gradients.dense:
        g = (gradient * np.float32(scale)).astype(np.float64)
        z += g - ((n + g * g) ** power - n**power) / rate * w
        n += g * g
        w = -z / (n**power / rate)
    ours, theirs = (np.abs(x[key]["value"] - w).max() for x in (dense, tf_dense))
    assert ours <= 1.5 * theirs
    assert ours <= 2e-4 * np.abs(w).max()


def test_a_scan_gives_what_single_steps_give(dense, gradients):
    init, step = dense_program()
    stacked = {s: gradients.dense * np.float32(s) for s in (1.0, 1e-4)}

    @jax.jit
    def run(carry, stacked):
        return jax.lax.scan(lambda c, g: (step(c, g), None), carry, stacked)[0]

    params, states = run(init(gradients.value), stacked)
    for key in SGD | ONE_PRODUCT | ADAGRAD:
        np.testing.assert_array_equal(params[key], dense[key]["value"], err_msg=key)
        for name, slot in states[key].slots.items():
            np.testing.assert_array_equal(slot, dense[key][name], err_msg=f"{key} {name}")


@pytest.mark.parametrize("rule", ["momentum", "rmsprop", "adam"])
def test_two_steps_in_one_program_give_what_single_steps_give(rule, gradients):
    optimizer = optimizers[rule](**next(v[1] for k, v in ONE_PRODUCT.items() if k.startswith(rule)))

    def step(carry, gradient):
        updates, state = optimizer.update(gradient, carry[1], carry[0])
        return optax.apply_updates(carry[0], updates), state

    value = jnp.asarray(gradients.value)
    apart = together = value, optimizer.init(value)
    two = jax.jit(lambda carry, g, h: step(step(carry, g), h))
    for first, second in zip(gradients.dense[0:40:2], gradients.dense[1:41:2], strict=True):
        together = two(together, first, second)
        apart = jax.jit(step)(jax.jit(step)(apart, first), second)
    jax.tree.map(np.testing.assert_array_equal, together, apart)


@pytest.mark.parametrize("key", ["momentum", "rmsprop", "adam"])
def test_without_exact_weights_are_still_close(key, gradients, dense):
    # 16: one product and sum fused is half a unit, and a thousand of them walk at random.
    cases = [k for k in ONE_PRODUCT if k.startswith(key) and k.endswith("*1")][:4]
    assert cases
    for case in cases:
        rule, kwargs, _ = SPECS[case]
        optimizer = optimizers[rule](**kwargs, exact=False)

        def body(carry, gradient, optimizer=optimizer):
            updates, state = optimizer.update(gradient, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        start = jnp.asarray(gradients.value)
        (value, _), _ = jax.jit(lambda c, g, body=body: jax.lax.scan(body, c, g))(
            (start, optimizer.init(start)), gradients.dense
        )
        assert ulps(value, np.asarray(dense[case]["value"])) <= 16
