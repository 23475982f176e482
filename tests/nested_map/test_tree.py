"""Flatten, Pack, Transform, Filter and the like on trees of every kind of container."""

import collections

import pytest

from monolith_jax.nested_map import NestedMap, NestedMapError

Pair = collections.namedtuple("Pair", ["x", "y"])


@pytest.fixture
def tree():
    return NestedMap(
        z=[1, [2], {"k": 3}],
        m=NestedMap(b=None, a=(4, NestedMap(c=5))),
        d=collections.defaultdict(list, {"q": 6}),
        e=[],
        f=NestedMap(),
        n=Pair(7, 8),
    )


ITEMS = [
    ("d.q", 6),
    ("m.a", (4, {"c": 5})),
    ("m.b", None),
    ("n", Pair(7, 8)),
    ("z[0]", 1),
    ("z[1][0]", 2),
    ("z[2].k", 3),
]


def test_flatten(tree):
    assert tree.FlattenItems() == ITEMS
    assert tree.Flatten() == [value for _, value in ITEMS]
    assert tree.Keys() == [path for path, _ in ITEMS]
    assert [tree.GetItem(path) for path in tree.Keys()] == tree.Flatten()


def test_order_is_that_of_sorted_keys_not_of_insertion():
    assert NestedMap(b=1, a=2, B=3).Keys() == ["B", "a", "b"]


def test_keys_of_plain_dicts_may_be_anything_that_sorts():
    m = NestedMap(a={2: "x", 1: [5]}, b={"c/d": 6})
    assert m.FlattenItems() == [("a[1][0]", 5), ("a[2]", "x"), ("b.c/d", 6)]
    assert [m.GetItem(path) for path in m.Keys()] == m.Flatten()
    assert m.Transform(str) == {"a": {1: ["5"], 2: "x"}, "b": {"c/d": "6"}}


def test_pack(tree):
    packed = tree.Pack(range(7))
    assert packed.Flatten() == list(range(7))
    assert packed.FlattenItems()[1] == ("m.a", 1)
    assert tree.FlattenItems() == ITEMS
    assert (packed.e, packed.f) == ([], {})


def test_packed_containers_have_their_class(tree):
    packed = tree.Pack(range(7))
    assert [type(packed.m), type(packed.f), type(packed.z[2])] == [NestedMap, NestedMap, dict]
    assert type(packed.d) is collections.defaultdict
    assert packed.d["new"] == []


@pytest.mark.parametrize("count", [0, 6, 8])
def test_pack_wants_as_many_values_as_leaves(tree, count):
    with pytest.raises(NestedMapError, match=f"Pack got {count} values.* 7 leaves: d.q, m.a"):
        tree.Pack([0] * count)


def test_transform(tree):
    assert tree.Transform(lambda v: [v]).Get("z[1][0][0]") == 2
    assert tree.TransformWithKey(lambda k, v: (k, v)).Flatten() == ITEMS
    assert tree.FlattenItems() == ITEMS
    assert NestedMap().Transform(str) == NestedMap().TransformWithKey(print) == {}


def test_a_transform_sees_leaves_in_order(tree):
    seen = []
    tree.Transform(seen.append)
    assert seen == tree.Flatten()


def test_filter_drops_what_it_empties_and_keeps_what_was_empty(tree):
    kept = tree.Filter(lambda v: v in (2, 6))
    assert kept == {"d": {"q": 6}, "e": [], "f": {}, "z": [[2]]}
    assert type(kept.d) is collections.defaultdict
    assert NestedMap(a=NestedMap(b=[1])).Filter(lambda v: False) == {}
    assert tree.FlattenItems() == ITEMS


def test_filter_key_val():
    m = NestedMap(a=1, b=[2, 3, 4], c=NestedMap(d=5))
    assert m.FilterKeyVal(lambda k, v: k in {"a", "b[2]"}) == {"a": 1, "b": [4]}


def test_none_as_a_leaf_is_not_deleted():
    assert NestedMap(a=None, b=[None]).TransformWithKey(lambda k, v: v) == {"a": None, "b": [None]}
    assert NestedMap(a=None).Filter(lambda v: v is None) == {"a": None}


def test_compatibility():
    x = NestedMap(a=1, b=[2, NestedMap(c=3)])
    assert x.IsCompatible(NestedMap(a="p", b=["q", {"c": "r"}]))
    assert x.IsCompatible({"a": 0, "b": [0, {"c": 0}]})
    assert x.Pack(["p", "q", "r"]).IsCompatible(x)
    assert not x.IsCompatible(NestedMap(a=1, b=[2, 3]))
    assert NestedMap().IsCompatible(NestedMap(a=[], b=NestedMap()))
