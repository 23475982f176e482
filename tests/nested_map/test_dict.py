"""The dict half: attributes, missing keys, copies, unions, pickles, subclasses."""

import copy
import pickle
import weakref

import cloudpickle
import numpy as np
import pytest

from monolith_jax.nested_map import MissingAttributeError, MissingKeyError, NestedMap


class Batch(NestedMap):
    """A subclass whose constructor nobody else can call."""

    def __init__(self, label, weight):
        super().__init__(label=label, weight=weight)


class Marked(NestedMap):
    """A subclass that adds nothing."""


def test_items_are_attributes():
    m = NestedMap({"x": 10})
    m.y = 20
    assert (m.x, m["y"], m.get("y"), list(m)) == (10, 20, 20, ["x", "y"])
    del m.x
    assert "x" not in m
    assert isinstance(m, dict)


@pytest.mark.parametrize("key", ["self", "args", "kwargs", "other", "cls", "key"])
def test_no_parameter_of_ours_takes_a_key_away(key):
    assert NestedMap(**{key: 1})[key] == 1
    m = NestedMap()
    m.update(**{key: 1})
    assert m[key] == 1


def test_a_key_named_like_a_method_of_ours_is_an_item():
    m = NestedMap(Flatten=1)
    assert m["Flatten"] == 1
    assert m.Flatten() == [1]


@pytest.mark.parametrize(
    ("error", "use"),
    [
        (KeyError, lambda m: m["wieght"]),
        (KeyError, lambda m: m.__delitem__("wieght")),
        (KeyError, lambda m: m.GetItem("wieght")),
        (KeyError, lambda m: NestedMap(a=m).GetItem("a.wieght.x")),
        (KeyError, lambda m: NestedMap(a=dict(m)).GetItem("a.wieght")),
        (AttributeError, lambda m: m.wieght),
        (AttributeError, lambda m: m.__delattr__("wieght")),
    ],
)
def test_a_missing_key_names_what_there_is_and_what_is_near(error, use):
    with pytest.raises(error) as caught:
        use(NestedMap(weight=1, bias=2))
    message = str(caught.value)
    assert message == ("'wieght'; available attributes: ['bias', 'weight']; did you mean weight?")
    assert isinstance(caught.value, (MissingKeyError, MissingAttributeError))
    assert str(pickle.loads(pickle.dumps(caught.value))) == message  # noqa: S301


def test_a_long_list_of_keys_is_cut():
    m = NestedMap({f"k{i:03}": i for i in range(500)})
    with pytest.raises(KeyError, match=r"'k019', and 480 more\]"):
        m["absent"]


def test_hasattr_and_getattr_with_default():
    m = NestedMap(a=1)
    assert hasattr(m, "a")
    assert not hasattr(m, "b")
    assert getattr(m, "b", 5) == 5
    assert not hasattr(m, "__array__")


def test_setdefault():
    m = NestedMap(a=1)
    assert (m.setdefault("a", 2), m.setdefault("b", 3), m.setdefault("c")) == (1, 3, None)
    assert m == {"a": 1, "b": 3, "c": None}


@pytest.mark.parametrize("cls", [NestedMap, Marked])
def test_unions_keep_the_class(cls):
    left, right = cls(a=1, b=2), {"b": 3, "c": 4}
    both, mirrored = left | right, right | left
    assert type(both) is type(mirrored) is cls
    assert both == {"a": 1, "b": 3, "c": 4}
    assert mirrored == {"a": 1, "b": 2, "c": 4}
    assert left == {"a": 1, "b": 2}
    alias = left
    alias |= [("b", 5)]
    assert alias is left
    assert left.b == 5
    with pytest.raises(TypeError):
        left | [("b", 5)]
    with pytest.raises(TypeError):
        [("b", 5)] | left


@pytest.mark.parametrize(
    "make", [NestedMap.copy, copy.copy, NestedMap], ids=["method", "copy", "class"]
)
def test_a_copy_is_shallow(make):
    x = NestedMap(a=1, b=NestedMap(c=2))
    y = make(x)
    y.a = 3
    y.b.c = 4
    assert (x.a, x.b.c) == (1, 4)
    assert type(y) is NestedMap


def test_a_deep_copy_has_containers_of_its_own_and_shares_leaves():
    leaf = np.zeros(3)
    pair = (1, [2])
    x = NestedMap(a=[leaf, [1]], b={"c": NestedMap()}, d=pair, e=None)
    for y in (copy.deepcopy(x), x.DeepCopy(), copy.deepcopy({"x": x})["x"]):
        assert y.a is not x.a
        assert y.a[1] is not x.a[1]
        assert y.b is not x.b
        assert y.b["c"] is not x.b["c"]
        assert type(y.b["c"]) is NestedMap
        assert y.a[0] is leaf
        assert y.d is pair
        assert y.e is None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol):
    x = NestedMap(a=1, b=[NestedMap(c=(2, None))], d=Batch(0, 1.0), e=NestedMap())
    y = pickle.loads(pickle.dumps(x, protocol))  # noqa: S301
    assert y == x
    assert list(y) == list(x)
    assert [type(y), type(y.b[0]), type(y.d), type(y.e)] == [NestedMap, NestedMap, Batch, NestedMap]


def test_pickle_names_the_public_place():
    assert b"monolith_jax.nested_map\n" in pickle.dumps(NestedMap(a=1), 0)


def test_a_map_within_itself_can_be_pickled():
    x = NestedMap(a=1)
    x.me = x
    y = pickle.loads(pickle.dumps(x))  # noqa: S301
    assert y.me is y


def test_cloudpickle():
    class Local(NestedMap):
        pass

    y = cloudpickle.loads(cloudpickle.dumps(Local(a=NestedMap(b=1))))
    assert y == {"a": {"b": 1}}
    assert y.a.b == 1


def test_weak_references():
    m = NestedMap()
    assert weakref.ref(m)() is m


def test_equality_is_that_of_a_dict_and_a_map_is_no_key():
    assert NestedMap(a=NestedMap(b=1)) == {"a": {"b": 1}}
    with pytest.raises(TypeError, match="unhashable"):
        hash(NestedMap())


@pytest.mark.parametrize(
    "method",
    [
        lambda m: m.copy(),
        copy.copy,
        copy.deepcopy,
        lambda m: m.DeepCopy(),
        lambda m: m.Transform(str),
        lambda m: m.TransformWithKey(lambda k, v: k),
        lambda m: m.Pack([1, 2]),
        lambda m: m.Filter(lambda v: True),
        lambda m: m.Filter(lambda v: False),
        lambda m: m.FilterKeyVal(lambda k, v: k == "label"),
        lambda m: m.GetSlice(["label"]),
        lambda m: m.Update({"extra": 1}),
        lambda m: m.Union({"extra": 1}),
        lambda m: m | {"extra": 1},
        lambda m: {"extra": 1} | m,
        lambda m: pickle.loads(pickle.dumps(m)),  # noqa: S301
    ],
)
def test_a_subclass_is_kept_and_its_constructor_not_called(method):
    assert type(method(Batch(0, 1.0))) is Batch
    assert type(method(NestedMap(label=0, weight=1))) is NestedMap


def test_subclasses_inside_are_kept():
    inner = NestedMap(b=Batch(0, 1.0), d=[Marked(x=1)]).Transform(lambda v: v)
    assert [type(inner), type(inner.b), type(inner.d[0])] == [NestedMap, Batch, Marked]
