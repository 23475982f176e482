"""Nested keys: reading, writing, slicing, merging."""

import collections

import numpy as np
import pytest

from monolith_jax.nested_map import NestedMap, NestedMapError


class Marked(NestedMap):
    """A subclass that adds nothing."""


@pytest.fixture
def tree():
    return NestedMap(a=NestedMap(b=[1, NestedMap(c=2), [3, 4]]), p={"q/r": 5, "s": None, 7: "x"})


READS = {"a.b[0]": 1, "a.b[1].c": 2, "a.b[2][1]": 4, "p.q/r": 5, "p.s": None, "p[7]": "x"}


@pytest.mark.parametrize(("path", "value"), READS.items())
def test_reading(tree, path, value):
    assert tree.GetItem(path) == value
    assert tree.Get(path, "default") == value
    assert tree.Has(path)


MISSES = {
    "z": KeyError,
    "a.z": KeyError,
    "p.z": KeyError,
    "a.b[3]": IndexError,
    "a.b[2][2]": IndexError,
    "a.b.c": TypeError,
    "a.b[0].c": TypeError,
    "a[0]": KeyError,
    "p.s.t": TypeError,
    "": KeyError,
    "a.": KeyError,
}


@pytest.mark.parametrize(("path", "error"), MISSES.items())
def test_what_is_not_there(tree, path, error):
    with pytest.raises(error):
        tree.GetItem(path)
    assert tree.Get(path) is None
    assert tree.Get(path, 5) == 5
    assert not tree.Has(path)


def test_an_index_reads_from_arrays_and_tuples_too():
    m = NestedMap(a=np.arange(3), t=(NestedMap(x=1),))
    assert m.GetItem("a[2]") == 2
    assert m.GetItem("t[0].x") == 1


def test_reading_does_not_fill_a_defaultdict():
    m = NestedMap(d=collections.defaultdict(list))
    assert m.Get("d.x") is None
    assert m.d == {}


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("k", ("k", None)),
        ("k[3]", ("k", 3)),
        ("k[1][2]", ("k[1][2]", None)),
        ("[3]", ("[3]", None)),
    ],
)
def test_square_bracket_index(key, parts):
    assert NestedMap.SquareBracketIndex(key) == parts


def test_set_makes_the_way():
    m = NestedMap()
    m.Set("a.b.c", 1)
    m.Set("a.l[0].x", 2)
    m.Set("a.l[1].x", 3)
    m.Set("a.l[1].y", 4)
    m.Set("n[0][0]", 5)
    m.Set("n[0][1]", 6)
    assert m == {"a": {"b": {"c": 1}, "l": [{"x": 2}, {"x": 3, "y": 4}]}, "n": [[5, 6]]}
    assert type(m.a.b) is type(m.a.l[1]) is NestedMap


def test_set_makes_maps_of_its_own_class():
    m = Marked()
    m.Set("a.b", 1)
    assert type(m.a) is Marked


def test_set_replaces_and_appends():
    m = NestedMap(a=[1, None], d={"x": 1})
    m.Set("a[0]", 2)
    m.Set("a[1].b", 3)
    m.Set("a[2]", 4)
    m.Set("d.x", 5)
    m.Set("d.y.z", 6)
    assert m == {"a": [2, {"b": 3}, 4], "d": {"x": 5, "y": {"z": 6}}}
    assert type(m.d) is dict


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x.b", "'b' needs a dict or NestedMap, but what is there is of type int"),
        ("x[0]", "0 needs a list, but what is there is of type int"),
        ("l.b", "'b' needs a dict or NestedMap, but what is there is of type list"),
        ("l[2]", "index 2 leaves a gap in a list of length 1"),
        ("l[2].b", "index 2 leaves a gap"),
        ("l[0].b", "of type int"),
        ("new[1]", "index 1 leaves a gap in a list of length 0"),
        ("new.a[0].b[1]", "index 1 leaves a gap"),
        ("n.b", "of type NoneType"),
        ("m[0]", "0 needs a list, but what is there is of type NestedMap"),
        ("new.keys.x", "reserved"),
    ],
)
def test_set_refuses_and_changes_nothing(path, message):
    m = NestedMap(x=1, l=[2], n=None, m=NestedMap())
    before = m.DeepCopy()
    with pytest.raises(NestedMapError, match=message):
        m.Set(path, 0)
    assert m == before


def test_get_slice():
    m = NestedMap(foo=[NestedMap(a=i, b=-i) for i in range(12)], bar=NestedMap(x=1, y=2), z=3)
    keys = {f"foo[{i}].a" for i in range(12)} | {"bar.y"}
    assert m.GetSlice(keys) == {"foo": [{"a": i} for i in range(12)], "bar": {"y": 2}}
    assert m.GetSlice([]) == {}
    assert m.GetSlice(["bar"]).bar is m.bar
    assert len(m.foo[0]) == 2
    with pytest.raises(KeyError):
        m.GetSlice(["bar.absent"])
    with pytest.raises(NestedMapError, match="gap"):
        m.GetSlice(["foo[1].a"])


def test_update_merges():
    m = NestedMap(a=NestedMap(x=1, y=2), l=[1, 2, 3], e=NestedMap(k=1))
    assert m.Update({"a": {"y": 5, "z": 6}, "l": [7], "e": {}, "n": {"o": [8]}}) is m
    assert m == {"a": {"x": 1, "y": 5, "z": 6}, "l": [7, 2, 3], "e": {"k": 1}, "n": {"o": [8]}}
    with pytest.raises(NestedMapError):
        m.Update({"l": {"x": 1}})


def test_union_leaves_both_sides_alone():
    x, y = NestedMap(a=NestedMap(b=1)), NestedMap(a=NestedMap(c=2), d=[3])
    both = x.Union(y)
    assert both == {"a": {"b": 1, "c": 2}, "d": [3]}
    both.a.b = both.d[0] = 9
    assert (x, y) == ({"a": {"b": 1}}, {"a": {"c": 2}, "d": [3]})
