"""Slot names and shapes against checkpoints that TensorFlow wrote."""

import numpy as np
import pytest

from monolith_jax.optimizers import (
    Adagrad,
    Adam,
    Ftrl,
    LazyAdam,
    Momentum,
    RMSProp,
    Sgd,
    TFVariable,
    tf_scalar_names,
    tf_slot_names,
)

SHAPES = {"emb/weights": (10, 4), "bias": (3,)}
CASES = {
    "adagrad": (Adagrad(), lambda t, **k: t.AdagradOptimizer(0.1, **k)),
    "momentum": (Momentum(), lambda t, **k: t.MomentumOptimizer(0.1, 0.9, **k)),
    "rmsprop": (RMSProp(), lambda t, **k: t.RMSPropOptimizer(0.1, **k)),
    "centered": (
        RMSProp(centered=True),
        lambda t, **k: t.RMSPropOptimizer(0.1, centered=True, **k),
    ),
    "adam": (Adam(), lambda t, **k: t.AdamOptimizer(0.1, **k)),
    "sgd": (Sgd(), lambda t, **k: t.GradientDescentOptimizer(0.1, **k)),
    "ftrl": (Ftrl(), lambda t, **k: t.FtrlOptimizer(0.1, **k)),
}


def written(tf, tmp_path, build):
    """Builds variables, lets `build` train them, saves, and returns {name: array}."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(
                name, shape, use_resource=True, initializer=tf.compat.v1.ones_initializer()
            )
            for name, shape in SHAPES.items()
        ]
        loss = tf.add_n([tf.reduce_sum(v * v) for v in variables])
        train = build(tf.compat.v1.train, loss)
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(train)
        prefix = tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def expected(rule, **kwargs):
    slots = {
        found
        for variable, shape in SHAPES.items()
        for found in tf_slot_names(rule, variable, shape, **kwargs).values()
    }
    return slots | {TFVariable(name, shape) for name, shape in SHAPES.items()}


def shapes(arrays):
    return {TFVariable(name, array.shape) for name, array in arrays.items()}


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("name", [None, "Mine"])
def test_names_and_shapes_are_those_in_the_checkpoint(tf, tmp_path, key, name):
    rule, make = CASES[key]
    kwargs = {} if name is None else {"name": name}
    arrays = written(tf, tmp_path, lambda t, loss: make(t, **kwargs).minimize(loss))
    assert shapes(arrays) == expected(rule, name=name) | set(tf_scalar_names(rule).values())


@pytest.mark.parametrize("key", ["centered", "adam", "ftrl"])
def test_each_name_holds_its_slot_and_not_a_sibling(tf, tmp_path, key):
    rule, make = CASES[key]
    rule = rule.replace(learning_rate=0.1)
    arrays = written(tf, tmp_path, lambda t, loss: make(t).minimize(loss))
    value = np.ones((10, 4), np.float32)
    step = 2 * value  # The gradient of v * v.
    _, slots = rule.update(step, value, rule.init_slots((10, 4)), rule.scalars, 0, rows=False)
    for name, (variable, _) in tf_slot_names(rule, "emb/weights", (10, 4)).items():
        np.testing.assert_allclose(arrays[variable], slots[name], rtol=1e-5, err_msg=name)
    for name, scalar in rule.advance(rule.scalars).items():
        np.testing.assert_array_equal(arrays[tf_scalar_names(rule)[name].name], scalar)


def test_a_second_optimizer_of_the_same_name_counts_on(tf, tmp_path):
    def both(train, loss):
        first = train.AdamOptimizer(0.1).minimize(loss)
        return [first, train.AdamOptimizer(0.2).minimize(loss)]

    arrays = written(tf, tmp_path, both)
    found = expected(Adam()) | expected(Adam(), index=1)
    found |= {*tf_scalar_names(Adam()).values(), *tf_scalar_names(Adam(), index=1).values()}
    assert shapes(arrays) == found


def test_scalars_lie_in_the_scope_of_the_training_op(tf, tmp_path):
    def scoped(train, loss):
        with tf.compat.v1.name_scope("s"):
            return train.AdamOptimizer(0.1).minimize(loss)

    arrays = written(tf, tmp_path, scoped)
    assert shapes(arrays) == expected(Adam()) | set(tf_scalar_names(Adam(), scope="s").values())


def test_scalars_may_have_a_namescope_of_their_own(tf, tmp_path):
    def own(train, loss):
        adam = train.AdamOptimizer(0.1, name="Mine", use_own_namescope_for_non_slot_vars=True)
        return adam.minimize(loss)

    arrays = written(tf, tmp_path, own)
    scalars = set(tf_scalar_names(Adam(), scope="Mine").values())
    assert shapes(arrays) == expected(Adam(), name="Mine") | scalars


def test_ftrls_slots_may_be_renamed(tf, tmp_path):
    arrays = written(
        tf, tmp_path, lambda t, loss: t.FtrlOptimizer(0.1, accum_name="acc").minimize(loss)
    )
    assert shapes(arrays) == expected(Ftrl(), renamed={"accumulator": "acc"})


def test_partitioned_variables_are_saved_merged(tf, tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weights = tf.compat.v1.get_variable(
            "w",
            (10, 4),
            use_resource=True,
            partitioner=tf.compat.v1.fixed_size_partitioner(3),
        )
        loss = tf.reduce_sum(tf.convert_to_tensor(weights) ** 2)
        train = tf.compat.v1.train.AdagradOptimizer(0.1).minimize(loss)
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(train)
        prefix = tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    found = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    (slot,) = tf_slot_names(Adagrad(), "w", (10, 4)).values()
    assert found[slot.name] == list(slot.shape)


def test_lazy_adam_keeps_adams_names():
    assert tf_slot_names(LazyAdam(), "w") == tf_slot_names(Adam(), "w")
