"""Registration with jax: sorted keys, and the paths that a dict has.

Every call of a jitted function flattens its arguments and unflattens its results, so this is the
hot part. Three things keep a node near the cost of jax's own dict, which is handled in C++:

- Unflattening checks no keys: they come from a map that was checked.
- All that follows from a map's keys (their sorted order, jax's path entries, a getter that reads
  all values in one C call) is computed once per tuple of keys, in insertion order, and cached.
- The static part of a node is the sorted tuple itself, one object for all maps with these keys,
  so that comparing two structures compares pointers.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

from jax.tree_util import DictKey, register_pytree_with_keys

from monolith_jax.nested_map._keyed import KeyedDict

M = TypeVar("M", bound=KeyedDict)
Keys = tuple[str, ...]
Layout = tuple[Callable[[KeyedDict], tuple[Any, ...]], Keys, tuple[DictKey, ...]]


@lru_cache(maxsize=2048)
def layout(keys: Keys) -> Layout:
    """Returns (getter of the values, sorted keys, jax's path entries) of maps with these keys.

    Example:
      >>> get, keys, entries = layout(("b", "a"))
      >>> get({"a": 1, "b": 2}), keys, entries
      ((1, 2), ('a', 'b'), (DictKey(key='a'), DictKey(key='b')))
    """
    ordered = tuple(sorted(keys))
    if ordered != keys:
        return layout(ordered)
    return _getter(keys), keys, tuple(map(DictKey, keys))


def _getter(keys: Keys) -> Callable[[KeyedDict], tuple[Any, ...]]:
    if len(keys) > 1:
        return itemgetter(*keys)
    # itemgetter takes no empty list, and gives a bare value for one key.
    return lambda node: tuple(node.values())


def register(cls: type[M]) -> None:
    """Makes `cls` a pytree node."""
    new, update = dict.__new__, dict.update

    def flatten(node: M) -> tuple[tuple[Any, ...], Keys]:
        get, keys, _ = layout(tuple(node))
        return get(node), keys

    def flatten_with_keys(node: M) -> tuple[Iterable[tuple[DictKey, Any]], Keys]:
        get, keys, entries = layout(tuple(node))
        return zip(entries, get(node), strict=True), keys

    def unflatten(keys: Keys, children: Iterable[Any]) -> M:
        node = new(cls)
        update(node, zip(keys, children))  # noqa: B905 jax has counted; strict costs time here
        return node

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
