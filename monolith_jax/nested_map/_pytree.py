"""Registration with jax: sorted keys, and the paths that a dict has.

Every call of a jitted function flattens its arguments and unflattens its results, so this is the
hot part. Three things keep a node near the cost of jax's own dict, which is handled in C++:

- Unflattening checks no keys: they come from a map that was checked. Few keys are joined with
  their values by hand (`_pairs`).
- All that follows from a map's keys (their sorted order, jax's path entries, a C function that
  reads all the values) is worked out once per tuple of keys, in insertion order, and kept.
- The static part of a node is the sorted tuple itself, one object for all maps with these keys,
  so that comparing two structures compares pointers.
"""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, Final, TypeVar

from jax.tree_util import DictKey, register_pytree_with_keys

from monolith_jax.nested_map._keyed import KeyedDict
from monolith_jax.nested_map._pairs import JOIN, Keys

M = TypeVar("M", bound=KeyedDict)
Layout = tuple[Callable[[Any], Iterable[Any]], Keys, tuple[DictKey, ...]]

_MOST: Final = 2048


_LAYOUTS: Final[dict[Keys, Layout]] = {}


def layout(keys: Keys) -> Layout:
    """Returns (getter of the values, sorted keys, jax's path entries) for keys in insertion order.

    Example:
      >>> get, keys, entries = layout(("b", "a"))
      >>> get({"b": 2, "a": 1}), keys, entries
      ((1, 2), ('a', 'b'), (DictKey(key='a'), DictKey(key='b')))
    """
    try:
        return _LAYOUTS[keys]
    except KeyError:
        found = _new_layout(keys)
    if len(_LAYOUTS) >= _MOST:
        _LAYOUTS.clear()  # a program with so many forms is making them up as it goes
    _LAYOUTS[keys] = found
    return found


def _new_layout(keys: Keys) -> Layout:
    ordered = tuple(sorted(keys))
    if ordered == keys:
        # In order already, as all maps are that jax has made: no look-ups by key.
        return dict.values, keys, tuple(map(DictKey, keys))
    return itemgetter(*ordered), *layout(ordered)[1:]


def register(cls: type[M]) -> None:
    """Makes `cls` a pytree node."""
    layouts, small, new, update = _LAYOUTS, JOIN, dict.__new__, dict.update

    def flatten(node: M) -> tuple[Iterable[Any], Keys]:
        keys = tuple(node)
        try:
            get, keys, _ = layouts[keys]
        except KeyError:
            get, keys, _ = layout(keys)
        return get(node), keys

    def flatten_with_keys(node: M) -> tuple[Iterable[tuple[DictKey, Any]], Keys]:
        get, keys, entries = layout(tuple(node))
        return zip(entries, get(node), strict=True), keys

    def unflatten(keys: Keys, children: Iterable[Any]) -> M:
        node = new(cls)
        update(node, small.get(len(keys), zip)(keys, children))
        return node

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
