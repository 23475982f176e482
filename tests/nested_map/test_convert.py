"""To and from dicts and dataclasses."""

import collections
import dataclasses
import types

import flax
import numpy as np
import pytest

from monolith_jax.nested_map import NestedMap, NestedMapError

Pair = collections.namedtuple("Pair", ["x", "y"])


class Marked(NestedMap):
    """A subclass that adds nothing."""


@dataclasses.dataclass
class Inner:
    w: object
    pair: Pair


@flax.struct.dataclass
class Outer:
    inner: list[Inner]
    extra: dict
    none: None = None


def test_from_nested_dict():
    made = NestedMap.FromNestedDict(
        {"a": {"b": 1}, "l": [{"c": 2}, 3], "t": ({"d": 4},), "n": Pair({"e": 5}, 6), "o": None}
    )
    assert made == {
        "a": {"b": 1},
        "l": [{"c": 2}, 3],
        "t": ({"d": 4},),
        "n": Pair({"e": 5}, 6),
        "o": None,
    }
    for inner in (made, made.a, made.l[0], made.t[0], made.n.x):
        assert type(inner) is NestedMap
    assert type(made.n) is Pair


@pytest.mark.parametrize(
    "mapping",
    [
        collections.OrderedDict(b=1, a={"c": 2}),
        types.MappingProxyType({"b": 1, "a": {"c": 2}}),
        flax.core.freeze({"b": 1, "a": {"c": 2}}),
        NestedMap(b=1, a={"c": 2}),
    ],
    ids=lambda m: type(m).__name__,
)
def test_any_mapping_will_do(mapping):
    made = NestedMap.FromNestedDict(mapping)
    assert made == {"b": 1, "a": {"c": 2}}
    assert type(made.a) is NestedMap


def test_leaves_and_lists_come_back():
    leaf = np.zeros(3)
    assert NestedMap.FromNestedDict(leaf) is leaf
    assert NestedMap.FromNestedDict([{"a": leaf}])[0].a is leaf


def test_a_subclass_makes_itself_and_keeps_others():
    made = Marked.FromNestedDict({"a": {"b": 1}})
    assert type(made) is type(made.a) is Marked
    assert type(NestedMap.FromNestedDict({"m": Marked(x=1)}).m) is Marked


def test_from_nested_dict_makes_new_containers():
    inner = NestedMap(b=[1])
    made = NestedMap.FromNestedDict(NestedMap(a=inner))
    assert made.a is not inner
    assert made.a.b is not inner.b


def test_from_nested_dataclass():
    leaf = np.zeros(3)
    made = NestedMap.FromNestedDataclass(Outer([Inner(leaf, Pair(1, {"p": 2}))], {"q": {"r": 3}}))
    assert made.Keys() == ["extra.q.r", "inner[0].pair", "inner[0].w", "none"]
    assert made.inner[0].w is leaf
    assert type(made.extra.q) is type(made.inner[0].pair.y) is NestedMap


@pytest.mark.parametrize("x", [{"a": 1}, 3, Inner], ids=str)
def test_only_an_instance_of_a_dataclass(x):
    with pytest.raises(NestedMapError, match="must be an instance of a dataclass"):
        NestedMap.FromNestedDataclass(x)


def test_to_nested_dict():
    m = NestedMap(a=Marked(b=1), l=[NestedMap(c=2)], t=(NestedMap(d=3),), n=Pair(NestedMap(e=4), 5))
    plain = m.ToNestedDict()
    assert plain == m
    for inner in (plain, plain["a"], plain["l"][0], plain["t"][0], plain["n"].x):
        assert type(inner) is dict
    assert type(plain["n"]) is Pair
    assert NestedMap.FromNestedDict(plain) == m
