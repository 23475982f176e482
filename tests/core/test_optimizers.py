import inspect

import optax
import pytest

from monolith_jax import optimizers as room
from monolith_jax.core import optimizers
from monolith_jax.errors import UserError

TF_CLASSES = {
    "adagrad": "AdagradOptimizer",
    "momentum": "MomentumOptimizer",
    "rmsprop": "RMSPropOptimizer",
    "adam": "AdamOptimizer",
    "sgd": "GradientDescentOptimizer",
    "ftrl": "FtrlOptimizer",
}


def test_the_table_is_the_rooms():
    assert optimizers.optimizers is room.optimizers


@pytest.mark.parametrize("name", TF_CLASSES)
def test_arguments_are_tfs_by_name_order_and_default(tf, name):
    theirs = list(
        inspect.signature(getattr(tf.compat.v1.train, TF_CLASSES[name])).parameters.values()
    )
    ours = [
        parameter
        for parameter in inspect.signature(optimizers.optimizers[name]).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def test_tfs_positional_arguments_work():
    made = optimizers.optimizers["rmsprop"](0.01, 0.9, 0.5, 1e-8, False, True, "RMSProp")
    assert isinstance(made, optax.GradientTransformation)
    assert list(made.init({}).slots) == ["ms", "mg", "momentum"]


def test_it_is_a_mapping_of_all_names():
    table = optimizers.optimizers
    assert list(table) == [
        "adagrad",
        "momentum",
        "rmsprop",
        "adam",
        "sgd",
        "ftrl",
        "rowwise_adagrad",
        "lazy_adam",
    ]
    assert len(table) == 8
    assert "adam" in table
    assert "adamax" not in table
    assert table.get("adamax") is None


@pytest.mark.parametrize("kind", [KeyError, UserError])
def test_an_unknown_name_lists_the_known_ones(kind):
    with pytest.raises(kind) as raised:
        optimizers.optimizers["rmsprob"]
    message = str(raised.value)
    assert message.startswith("no optimizer named 'rmsprob': did you mean rmsprop?")
    assert "adagrad, adam, ftrl, lazy_adam, momentum, rmsprop, rowwise_adagrad, sgd" in message


def test_a_name_like_none_of_them_lists_them_once():
    with pytest.raises(KeyError) as raised:
        optimizers.optimizers["zzz"]
    assert str(raised.value).count(" adagrad,") == 1
