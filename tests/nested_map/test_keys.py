"""Keys are identifiers and no attributes of dict, whichever way they come in."""

import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.errors import UserError
from monolith_jax.nested_map import NestedMap, NestedMapError


def pickled(key, value, protocol):
    """What damaged or hostile bytes may hold: a map with a key that no map takes."""
    m = NestedMap()
    dict.__setitem__(m, key, value)
    return pickle.dumps(m, protocol)


def into(change):
    """A way in that changes an empty map, and gives it back."""

    def way(key, value):
        m = NestedMap()
        change(m, key, value)
        return m

    return way


def in_place_or(key, value):
    m = NestedMap()
    m |= {key: value}
    return m


WAYS_IN = {
    "constructor, mapping": lambda k, v: NestedMap({k: v}),
    "constructor, pairs": lambda k, v: NestedMap([(k, v)]),
    "item": into(lambda m, k, v: m.__setitem__(k, v)),
    "update, mapping": into(lambda m, k, v: m.update({k: v})),
    "update, pairs": into(lambda m, k, v: m.update([(k, v)])),
    "setdefault": into(lambda m, k, v: m.setdefault(k, v)),
    "|": lambda k, v: NestedMap() | {k: v},
    "| from the left": lambda k, v: {k: v} | NestedMap(),
    "|=": in_place_or,
    "fromkeys": lambda k, v: NestedMap.fromkeys([k], v),
    "FromNestedDict": lambda k, v: NestedMap.FromNestedDict({k: v}),
    "FromNestedDict, inner": lambda k, v: NestedMap.FromNestedDict({"a": [{k: v}]}).a[0],
    **{
        f"unpickling, protocol {p}": lambda k, v, p=p: pickle.loads(pickled(k, v, p))  # noqa: S301
        for p in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}
STRING_WAYS_IN = {
    **WAYS_IN,
    "constructor, keyword": lambda k, v: NestedMap(**{k: v}),
    "update, keyword": into(lambda m, k, v: m.update(**{k: v})),
    "attribute": into(setattr),
    "CheckKey": lambda k, v: NestedMap.CheckKey(k) or NestedMap({k: v}),
}
BAD = [
    "",
    "1a",
    "a-b",
    "a b",
    "a.b",
    "a\n",
    "é",
    "\uff21",
    "x\x00",
    "get",
    "items",
    "__class__",
    "pop",
]
GOOD = ["a", "_", "A1", "class", "_x_1", "self", "Get", "__x__", "shape"]


@pytest.mark.parametrize("key", BAD)
@pytest.mark.parametrize("way", STRING_WAYS_IN)
def test_a_bad_key_is_refused(way, key):
    with pytest.raises(NestedMapError, match=re.escape(repr(key))):
        STRING_WAYS_IN[way](key, 1)


@pytest.mark.parametrize("key", [1, None, ("a",), b"a"])
@pytest.mark.parametrize("way", WAYS_IN)
def test_a_key_that_is_no_string_is_refused(way, key):
    with pytest.raises(NestedMapError, match="has to be a string"):
        WAYS_IN[way](key, 1)


@pytest.mark.parametrize(
    "key", [*(key for key in BAD if key != "a.b"), "a[-1]", "a[x]", "a[0]b", "[0]"]
)
@pytest.mark.parametrize("form", ["{}", "x.{}", "x[0].{}"])
def test_set_refuses_a_bad_part_and_changes_nothing(form, key):
    m = NestedMap()
    with pytest.raises(NestedMapError):
        m.Set(form.format(key), 1)
    assert m == {}


@pytest.mark.parametrize("key", GOOD)
@pytest.mark.parametrize("way", STRING_WAYS_IN)
def test_a_good_key_is_taken(way, key):
    m = STRING_WAYS_IN[way](key, 1)
    assert type(m) is NestedMap
    assert list(m.items()) == [(key, 1)]


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", max_codepoint=0x250), max_size=6) | st.text(max_size=3))
def test_exactly_the_identifiers_that_dict_does_not_have(key):
    valid = re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", key) and key not in dir(dict)
    for way in STRING_WAYS_IN.values():
        if valid:
            way(key, 1)
        else:
            with pytest.raises(NestedMapError):
                way(key, 1)


def test_the_error_is_what_both_originals_raise_and_one_line_for_the_user():
    assert issubclass(NestedMapError, ValueError)
    assert issubclass(NestedMapError, AssertionError)
    assert issubclass(NestedMapError, UserError)


@pytest.mark.parametrize(
    ("key", "mended"), [("user-id", "user_id"), ("1st", "_1st"), ("", "_"), ("a b", "a_b")]
)
def test_the_message_has_a_key_that_would_do(key, mended):
    with pytest.raises(NestedMapError, match=f"instance '{mended}'"):
        NestedMap.CheckKey(key)


def test_the_message_says_where():
    with pytest.raises(NestedMapError, match=r"'a-b' in 'x\.y\[1\]'"):
        NestedMap.FromNestedDict({"x": {"y": [0, {"a-b": 1}]}})


def test_update_is_all_or_nothing():
    m = NestedMap(a=1)
    for update in (lambda: m.update(a=2, get=3), lambda: m.__ior__({"a": 2, "b-": 3})):
        with pytest.raises(NestedMapError):
            update()
        assert m == {"a": 1}


def test_a_second_init_checks_too():
    m = NestedMap(a=1)
    with pytest.raises(NestedMapError):
        m.__init__({"b-": 1})
    assert m == {"a": 1}
