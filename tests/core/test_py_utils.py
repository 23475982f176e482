"""Monolith's NestedMap by its own import name: names, arguments, errors."""

import inspect

import pytest

import monolith_jax
from monolith_jax.core import py_utils
from monolith_jax.core.py_utils import NestedMap

# Public names of monolith/core/py_utils.py and their parameters.
METHODS = {
    "CheckKey": ["key"],
    "copy": ["self"],
    "DebugString": ["self"],
    "DeepCopy": ["self"],
    "Filter": ["self", "fn"],
    "FilterKeyVal": ["self", "fn"],
    "Flatten": ["self"],
    "FlattenItems": ["self"],
    "FromNestedDict": ["x"],
    "Get": ["self", "key", "default"],
    "GetItem": ["self", "key"],
    "IsCompatible": ["self", "other"],
    "Pack": ["self", "lst"],
    "Set": ["self", "key", "value"],
    "Transform": ["self", "fn"],
    "VLog": ["self", "level", "prefix"],
}


def test_it_is_the_one_class():
    assert py_utils.__all__ == ["NestedMap"]
    assert NestedMap is monolith_jax.NestedMap


@pytest.mark.parametrize(("name", "parameters"), METHODS.items())
def test_methods_and_their_parameters(name, parameters):
    assert list(inspect.signature(getattr(NestedMap, name)).parameters) == parameters


@pytest.mark.parametrize(
    ("error", "message", "use"),
    [
        (ValueError, "Invalid NestedMap key '1a'", lambda m: NestedMap.CheckKey("1a")),
        (ValueError, "NestedMap", lambda m: NestedMap.CheckKey(3)),
        (AssertionError, "is a reserved key", lambda m: NestedMap(get=1)),
        (AssertionError, "is a reserved key", lambda m: setattr(m, "items", 1)),
        (AssertionError, "Key in a NestedMap has to be a", lambda m: m.__setitem__(3, 1)),
        (AttributeError, "available attributes: .'a'.", lambda m: m.b),
        (AttributeError, "available attributes: .'a'.", lambda m: delattr(m, "b")),
        (KeyError, "b", lambda m: m.GetItem("a.b")),
        (ValueError, "Error while setting key 'a.x.y'", lambda m: m.Set("a.x.y", 1)),
        (AssertionError, "Pack got 0 values", lambda m: m.Pack([])),
    ],
)
def test_errors_are_those_of_the_original(error, message, use):
    with pytest.raises(error, match=message):
        use(NestedMap(a=NestedMap(x=1)))


def test_defects_of_the_original_are_not_here(caplog):
    class Mine(NestedMap):
        pass

    with caplog.at_level("INFO"):
        NestedMap(a=1).VLog()  # the original: NameError, `tf` is not imported
    assert "a    1" in caplog.text
    assert type(Mine(a=1).copy()) is type(Mine(a=1).Transform(str)) is Mine
    for enter in (
        lambda m: m.update({"a-b": 1}),
        lambda m: m.setdefault("a-b", 1),
        lambda m: m.__ior__({"a-b": 1}),
        lambda m: NestedMap.CheckKey("a-b"),
    ):
        with pytest.raises(ValueError, match="a-b"):
            enter(NestedMap())
