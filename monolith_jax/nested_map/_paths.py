"""Nested keys: ``a.b[2].c`` reads and writes through maps, plain dicts and lists."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from monolith_jax.nested_map._keyed import blank
from monolith_jax.nested_map._keys import MissingKeyError, NestedMapError, check_key
from monolith_jax.nested_map._tree import TreeMap, leaf_items

_PART: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)((?:\[[0-9]+\])*)")
_ONE_INDEX: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\[([0-9]+)\]")

Step = str | int


class PathMap(TreeMap):
    """The part of `NestedMap` that takes nested keys."""

    __slots__ = ()

    @staticmethod
    def SquareBracketIndex(key: str) -> tuple[str, int | None]:
        """Splits one part of a path: ``k[0]`` is ("k", 0), anything else is (key, None).

        Example:
          >>> PathMap.SquareBracketIndex("k[10]"), PathMap.SquareBracketIndex("k")
          (('k', 10), ('k', None))
        """
        match = _ONE_INDEX.fullmatch(key)
        return (match[1], int(match[2])) if match else (key, None)

    def GetItem(self, key: str) -> Any:
        """Returns the value at a nested key.

        Args:
          key: parts joined by dots, ``a.b[2].c``. A part that is no identifier with indexes is
            looked up as it is, which a plain dict inside may need.

        Raises:
          KeyError: a part is not there; near misses are named.
          IndexError: an index is beyond the end of its list.
          TypeError: a part goes into something that has no keys.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=[NestedMap(b=5)]).GetItem("a[0].b")
          5
        """
        node: Any = self
        for step in steps_of(key):
            if isinstance(step, str) and isinstance(node, dict) and step not in node:
                raise MissingKeyError(step, tuple(node))
            node = node[step]
        return node

    def Get(self, key: str, default: Any = None) -> Any:
        """Returns the value at a nested key, or `default` if there is none.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=NestedMap(b=5)).Get("a.c", 0)
          0
        """
        try:
            return self.GetItem(key)
        except (KeyError, IndexError, TypeError):
            return default

    def Has(self, key: str) -> bool:
        """Returns whether there is a value at a nested key, be it None.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> m = NestedMap(a=[NestedMap(b=None)])
          >>> m.Has("a[0].b"), m.Has("a[1].b")
          (True, False)
        """
        missing = object()
        return self.Get(key, missing) is not missing

    def Set(self, key: str, value: Any) -> None:
        """Sets the value at a nested key, and makes the maps and lists on the way.

        Either all of it happens or, on an error, nothing. New maps have the class of this one.

        Args:
          key: parts joined by dots, each an identifier, perhaps with indexes: ``a.b[2].c``. An
            index is one of the list's, or its length, which appends.
          value: what to put there.

        Raises:
          NestedMapError: a part is no good as a key, an index leaves a gap, or a part on the way
            is neither map, dict nor list.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> m = NestedMap()
          >>> m.Set("a.b[0].c", 5)
          >>> m
          NestedMap(a=NestedMap(b=[NestedMap(c=5)]))
        """
        steps = _checked_steps(key)
        node: Any = self
        for i, step in enumerate(steps):
            _check_container(node, step, key)
            last = i == len(steps) - 1
            if last or _absent(node, step):
                new = value if last else _grow(steps[i + 1 :], value, key, type(self))
                if isinstance(node, list) and step == len(node):
                    node.append(new)
                else:
                    node[step] = new
                return
            node = node[step]

    def GetSlice(self, keys: Iterable[str]) -> Self:
        """Returns a map of only the given nested keys, whatever order they come in.

        Args:
          keys: paths of leaves, or of maps and lists, which are shared with this map. Indexes of
            one list have to start at 0 and leave no gap.

        Raises:
          KeyError, IndexError, TypeError: as from `GetItem`.
          NestedMapError: as from `Set`.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=NestedMap(b=1, c=2), d=3).GetSlice({"a.c", "d"})
          NestedMap(a=NestedMap(c=2), d=3)
        """
        sliced = blank(type(self))
        for key in sorted(keys, key=_natural):
            sliced.Set(key, self.GetItem(key))
        return sliced

    def Update(self, other: Mapping[str, Any]) -> Self:
        """Sets every leaf of `other` at its path, and returns this map.

        Unlike `update` it merges nested maps instead of replacing them. Empty containers of
        `other` have no leaves and change nothing; a shorter list replaces only its own indexes.

        Raises:
          NestedMapError: as from `Set`.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=NestedMap(b=1)).Update(NestedMap(a=NestedMap(c=2)))
          NestedMap(a=NestedMap(b=1, c=2))
        """
        for path, leaf in leaf_items(dict(other)):
            self.Set(path, leaf)
        return self

    def Union(self, other: Mapping[str, Any]) -> Self:
        """Returns a new map with the leaves of this one and of `other`, which wins.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=NestedMap(b=1)).Union(NestedMap(a=NestedMap(c=2)))
          NestedMap(a=NestedMap(b=1, c=2))
        """
        return blank(type(self)).Update(self).Update(other)


def steps_of(path: str) -> tuple[Step, ...]:
    """Returns the keys and indexes of a path; a part that has another form is one key.

    Example:
      >>> steps_of("a.b[2][0].c"), steps_of("a.b/c")
      (('a', 'b', 2, 0, 'c'), ('a', 'b/c'))
    """
    steps: list[Step] = []
    for part in path.split("."):
        match = _PART.fullmatch(part)
        if match is None:
            steps.append(part)
        else:
            steps += [match[1], *map(int, re.findall("[0-9]+", match[2]))]
    return tuple(steps)


def _checked_steps(path: str) -> tuple[Step, ...]:
    if not isinstance(path, str):
        check_key(path)
    for part in path.split("."):
        if not _PART.fullmatch(part):
            check_key(part, path)
    return steps_of(path)


def _natural(path: str) -> list[tuple[str, int]]:
    """Orders paths so that ``a[2]`` comes before ``a[10]``."""
    return [("", step) if isinstance(step, int) else (step, -1) for step in steps_of(path)]


def _absent(node: Any, step: Step) -> bool:
    """Returns whether there is nothing at `step`; a list may hold a place open with None."""
    if isinstance(node, list):
        return step == len(node) or node[step] is None  # type: ignore[index]
    return step not in node


def _check_container(node: Any, step: Step, path: str) -> None:
    """Raises unless `step` of `path` may be set, or gone through, in `node`."""
    if isinstance(step, str) and isinstance(node, dict):
        return
    if isinstance(step, int) and isinstance(node, list):
        if step > len(node):
            raise NestedMapError(
                f"Error while setting key {path!r}: index {step} leaves a gap in a list of length "
                f"{len(node)}"
            )
        return
    wanted = "a list" if isinstance(step, int) else "a dict or NestedMap"
    raise NestedMapError(
        f"Error while setting key {path!r}: {step!r} needs {wanted}, but what is there is of type "
        f"{type(node).__name__}"
    )


def _grow(steps: tuple[Step, ...], value: Any, path: str, cls: type[PathMap]) -> Any:
    """Returns the new maps and lists that lead along `steps` to `value`."""
    for step in reversed(steps):
        if isinstance(step, int):
            _check_container([], step, path)
            value = [value]
        else:
            branch = blank(cls)
            branch[step] = value
            value = branch
    return value
