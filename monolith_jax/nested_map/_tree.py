"""The walk over a `NestedMap`: leaves, their paths, and the same structure with other leaves.

Containers are dicts (of any class) and lists; everything else is a leaf, None and tuples included.
A dict's children come in the order of its sorted keys. Lists of lists, empty containers and dict
subclasses keep their form.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

from monolith_jax.nested_map._keyed import KeyedDict, blank
from monolith_jax.nested_map._keys import NestedMapError

_DELETED = object()


class TreeMap(KeyedDict):
    """The part of `NestedMap` that walks over all the leaves."""

    __slots__ = ()

    def Flatten(self) -> list[Any]:
        """Returns the leaves in the order of their sorted keys.

        `jax.tree.leaves` gives the same list, but for what jax does to every pytree: it drops
        None, and it descends into tuples and whatever else is registered, which are leaves here.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(b=[1, None], a=NestedMap(c=(2, 3))).Flatten()
          [(2, 3), 1, None]
        """
        leaves: list[Any] = []
        _collect(self, leaves)
        return leaves

    def FlattenItems(self) -> list[tuple[str, Any]]:
        """Returns (path, leaf) for each leaf, in the order of `Flatten`.

        A path is as `GetItem` and `Set` take it: ``foo.bar[10].baz``.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(b=[1, 2], a=NestedMap(c=3)).FlattenItems()
          [('a.c', 3), ('b[0]', 1), ('b[1]', 2)]
        """
        return list(leaf_items(self))

    def Keys(self) -> list[str]:
        """Returns the paths of all leaves, in the order of `Flatten`.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(b=[1, 2], a=NestedMap(c=3)).Keys()
          ['a.c', 'b[0]', 'b[1]']
        """
        return [path for path, _ in leaf_items(self)]

    def Pack(self, lst: Iterable[Any]) -> Self:
        """Returns a copy whose leaves are the values of `lst`, in the order of `Flatten`.

        Args:
          lst: as many values as this map has leaves.

        Raises:
          NestedMapError: there are more or fewer values than leaves.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(b=[1, 2], a=NestedMap(c=3)).Pack("xyz")
          NestedMap(a=NestedMap(c='x'), b=['y', 'z'])
        """
        values: Sequence[Any] = list(lst)
        keys = self.Keys()
        if len(values) != len(keys):
            shown = ", ".join(keys[:20]) + (", ..." if len(keys) > 20 else "")
            raise NestedMapError(
                f"Pack got {len(values)} values, but the template has {len(keys)} leaves: {shown}"
            )
        rest = iter(values)
        return _rebuild(self, lambda _: next(rest))

    def Transform(self, fn: Callable[[Any], Any]) -> Self:
        """Returns a copy whose leaves are ``fn(leaf)``.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=1, b=[2]).Transform(lambda x: 10 * x)
          NestedMap(a=10, b=[20])
        """
        return _rebuild(self, fn)

    def TransformWithKey(self, fn: Callable[[str, Any], Any]) -> Self:
        """Returns a copy whose leaves are ``fn(path, leaf)``.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=1, b=[2]).TransformWithKey(lambda path, x: f"{path}={x}")
          NestedMap(a='a=1', b=['b[0]=2'])
        """
        return _select(self, "", fn)

    def Filter(self, fn: Callable[[Any], bool]) -> Self:
        """Returns a copy with the leaves of which ``fn(leaf)`` is true; see `FilterKeyVal`.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=1, b=[2, 3], c=[1]).Filter(lambda x: x > 1)
          NestedMap(b=[2, 3])
        """
        return self.FilterKeyVal(lambda _, leaf: fn(leaf))

    def FilterKeyVal(self, fn: Callable[[str, Any], bool]) -> Self:
        """Returns a copy with the leaves of which ``fn(path, leaf)`` is true.

        Lists close up. A container that lost all it had goes too; one that was empty stays.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=1, b=[2, 3], c=[]).FilterKeyVal(lambda path, _: path != "b[0]")
          NestedMap(a=1, b=[3], c=[])
        """
        kept = _select(self, "", lambda path, leaf: leaf if fn(path, leaf) else _DELETED)
        return blank(type(self)) if kept is _DELETED else kept

    def IsCompatible(self, other: dict[str, Any]) -> bool:
        """Returns whether `other` has the same paths, so that ``self.Pack(other.Flatten())`` works.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=1, b=[2]).IsCompatible(NestedMap(a="x", b=["y"]))
          True
        """
        return self.Keys() == [path for path, _ in leaf_items(other)]

    def DeepCopy(self) -> Self:
        """Returns a copy with containers of its own and the same leaf objects.

        `copy.deepcopy` does this too: arrays are immutable, and a model's weights are large.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> m = NestedMap(a=[{1, 2}])
          >>> m.DeepCopy().a is m.a, m.DeepCopy().a[0] is m.a[0]
          (False, True)
        """
        return _rebuild(self, lambda leaf: leaf)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.DeepCopy()


def join(path: str, key: object) -> str:
    """Returns the path of the child `key` of the dict at `path`; a key that is an int is an index.

    Example:
      >>> join("", "a"), join("a", "b"), join("a", 3)
      ('a', 'a.b', 'a[3]')
    """
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


def leaf_items(container: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf) for each leaf below `container`, a dict or list."""
    for child_path, child in _children(container, path):
        if isinstance(child, (dict, list)):
            yield from leaf_items(child, child_path)
        else:
            yield child_path, child


def _children(container: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(container, list):
        return ((f"{path}[{i}]", child) for i, child in enumerate(container))
    return ((join(path, key), container[key]) for key in sorted(container))


def _collect(container: Any, leaves: list[Any]) -> None:
    values = container
    if isinstance(container, dict):
        values = [container[key] for key in sorted(container)]
    for value in values:
        if isinstance(value, (dict, list)):
            _collect(value, leaves)
        else:
            leaves.append(value)


def _rebuild(node: Any, fn: Callable[[Any], Any]) -> Any:
    if isinstance(node, list):
        return [_rebuild(x, fn) if isinstance(x, (dict, list)) else fn(x) for x in node]
    children = {}
    for key in sorted(node):
        value = node[key]
        children[key] = _rebuild(value, fn) if isinstance(value, (dict, list)) else fn(value)
    return _like(node, children)


def _select(node: Any, path: str, fn: Callable[[str, Any], Any]) -> Any:
    """Rebuilds `node` of ``fn(path, leaf)``, without the leaves for which that is _DELETED."""
    if isinstance(node, list):
        results = [_select(child, child_path, fn) for child_path, child in _children(node, path)]
        kept = [x for x in results if x is not _DELETED]
        return _DELETED if node and not kept else kept
    if isinstance(node, dict):
        chosen = {key: _select(node[key], join(path, key), fn) for key in sorted(node)}
        children = {key: x for key, x in chosen.items() if x is not _DELETED}
        return _DELETED if node and not children else _like(node, children)
    return fn(path, node)


def _like(template: dict[Any, Any], children: dict[Any, Any]) -> dict[Any, Any]:
    """Returns a dict of `template`'s class that holds `children`."""
    if type(template) is dict:
        return children
    if isinstance(template, KeyedDict):
        new = blank(type(template))
        dict.update(new, children)  # the keys are the template's: checked already
        return new
    other = copy.copy(template)  # a defaultdict keeps its factory
    other.clear()
    other.update(children)
    return other
