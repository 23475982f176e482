"""What holds for every tree: properties, with hypothesis."""

import pickle
import re
from operator import itemgetter

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.nested_map import NestedMap

KEYS = st.from_regex(re.compile("[A-Za-z_][A-Za-z0-9_]{0,3}", re.ASCII), fullmatch=True).filter(
    lambda key: key not in dir(dict)
)
LEAVES = st.integers() | st.text(max_size=3) | st.just(())  # an empty tuple has no leaves for jax
ARRAYS = st.builds(np.float32, st.integers(-5, 5))


class Marked(NestedMap):
    """A subclass that adds nothing."""


def trees(leaves, min_size=0):
    """Maps of maps, subclasses, dicts and lists."""

    def containers(children):
        items = st.dictionaries(KEYS, children, min_size=min_size, max_size=4)
        return st.one_of(
            items.map(NestedMap),
            items.map(Marked),
            items,
            st.lists(children, min_size=min_size, max_size=3),
        )

    inner = st.recursive(leaves, containers, max_leaves=12)
    return st.dictionaries(KEYS, inner, min_size=min_size, max_size=4).map(NestedMap)


def types_of(node):
    """The classes of all containers, in their places."""
    if isinstance(node, dict):
        return type(node), {key: types_of(value) for key, value in node.items()}
    if isinstance(node, list):
        return list, [types_of(value) for value in node]
    return None


@settings(deadline=None)
@given(trees(LEAVES | st.none()))
def test_flatten_then_pack_is_the_same_tree(tree):
    packed = tree.Pack(tree.Flatten())
    assert packed == tree
    assert types_of(packed) == types_of(tree)
    assert tree.Pack(range(len(tree.Flatten()))).Flatten() == [*range(len(tree.Flatten()))]
    assert tree.IsCompatible(packed)


@settings(deadline=None)
@given(trees(ARRAYS))
def test_tree_flatten_then_unflatten_is_the_same_tree(tree):
    leaves, structure = jax.tree.flatten(tree)
    again = jax.tree.unflatten(structure, leaves)
    assert again == tree
    assert types_of(again) == types_of(tree)
    assert jax.tree.structure(again) == structure
    assert hash(jax.tree.structure(again)) == hash(structure)


@settings(deadline=None)
@given(trees(ARRAYS))
def test_jax_sees_the_leaves_of_flatten_at_the_paths_of_a_dict(tree):
    assert jax.tree.leaves(tree) == tree.Flatten()
    ours, _ = jax.tree.flatten_with_path(tree)
    theirs, _ = jax.tree.flatten_with_path(tree.ToNestedDict())
    assert ours == theirs


@settings(deadline=None)
@given(trees(LEAVES, min_size=1))
def test_setting_all_items_makes_the_same_tree(tree):
    again = NestedMap()
    for path, leaf in tree.FlattenItems():
        again.Set(path, leaf)
    assert again == tree
    assert NestedMap().Update(tree) == tree


@settings(deadline=None)
@given(trees(LEAVES | st.none()))
def test_every_path_reads_its_leaf(tree):
    for path, leaf in tree.FlattenItems():
        assert tree.Has(path)
        assert tree.GetItem(path) is leaf


@settings(deadline=None)
@given(trees(LEAVES | st.none()))
def test_conversions_and_copies_are_equal(tree):
    assert NestedMap.FromNestedDict(tree.ToNestedDict()) == tree
    assert types_of(tree.DeepCopy()) == types_of(tree)
    assert types_of(pickle.loads(pickle.dumps(tree))) == types_of(tree)  # noqa: S301
    assert tree.Filter(lambda _: True) == tree
    assert tree.Transform(lambda x: x) == tree.TransformWithKey(lambda _, x: x) == tree


@settings(deadline=None)
@given(trees(LEAVES), st.sets(st.integers(0, 20)))
def test_a_filter_keeps_the_leaves_it_is_asked_to(tree, chosen):
    items = tree.FlattenItems()
    wanted = {path for i, (path, _) in enumerate(items) if i in chosen}
    kept = tree.FilterKeyVal(lambda path, _: path in wanted)
    assert kept.Flatten() == [leaf for path, leaf in items if path in wanted]


@settings(deadline=None)
@given(trees(LEAVES, min_size=1), trees(LEAVES, min_size=1))
def test_a_union_of_maps_without_common_keys_has_both(left, right):
    right = NestedMap({f"other_{key}": value for key, value in right.items()})
    left = NestedMap({f"one_{key}": value for key, value in left.items()})
    assert left.Union(right) == {**left, **right}


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, ARRAYS), max_size=8, unique_by=itemgetter(0)))
def test_the_order_of_insertion_is_no_part_of_the_structure(pairs):
    one, other = NestedMap(pairs), NestedMap(reversed(pairs))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert jax.tree.leaves(one) == jax.tree.leaves(other)
    assert list(jax.tree.map(lambda x: x, one)) == sorted(one)
