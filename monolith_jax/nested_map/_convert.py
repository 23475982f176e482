"""To and from plain dicts and dataclasses."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from monolith_jax.nested_map._keyed import KeyedDict, blank
from monolith_jax.nested_map._keys import NestedMapError, check_key
from monolith_jax.nested_map._paths import PathMap
from monolith_jax.nested_map._tree import join

M = TypeVar("M", bound=KeyedDict)


class ConvertibleMap(PathMap):
    """The part of `NestedMap` that converts."""

    __slots__ = ()

    @classmethod
    def FromNestedDict(cls, x: Any) -> Any:
        """Returns `x` with every mapping in it as a map, through lists and (named) tuples.

        Args:
          x: a mapping (flax's FrozenDict too), list, tuple, or a leaf, which is returned. Maps of
            a subclass keep their class.

        Raises:
          NestedMapError: a key is no good; the message has its path.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap.FromNestedDict({"a": [{"b": 1}]})
          NestedMap(a=[NestedMap(b=1)])
        """
        return _to_maps(x, cls, "", dataclasses_too=False)

    @classmethod
    def FromNestedDataclass(cls, x: Any) -> Any:
        """Returns a dataclass as a map of its fields, dataclasses and mappings inside too.

        Leaves are shared, not copied (`dataclasses.asdict` copies them).

        Raises:
          NestedMapError: `x` is not an instance of a dataclass, or a key is no good.

        Example:
          >>> import dataclasses
          >>> from monolith_jax.nested_map import NestedMap
          >>> @dataclasses.dataclass
          ... class Point:
          ...     x: int
          >>> NestedMap.FromNestedDataclass(Point(3))
          NestedMap(x=3)
        """
        if not dataclasses.is_dataclass(x) or isinstance(x, type):
            raise NestedMapError(f"{x!r} must be an instance of a dataclass, got {type(x)}")
        return _to_maps(x, cls, "", dataclasses_too=True)

    def ToNestedDict(self) -> dict[str, Any]:
        """Returns plain dicts all the way down, for code that asks for ``type(x) is dict``.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=[NestedMap(b=1)], c=(NestedMap(d=2),)).ToNestedDict()
          {'a': [{'b': 1}], 'c': ({'d': 2},)}
        """
        plain: dict[str, Any] = to_plain(self)
        return plain


def to_plain(x: Any) -> Any:
    """Returns `x` with every dict in it, of whatever class, as a plain dict."""
    if isinstance(x, dict):
        return {key: to_plain(value) for key, value in x.items()}
    if isinstance(x, list):
        return [to_plain(value) for value in x]
    if isinstance(x, tuple):
        return _like_sequence(x, [to_plain(value) for value in x])
    return x


def _to_maps(x: Any, cls: type[M], path: str, *, dataclasses_too: bool) -> Any:
    def inner(child: Any, child_path: str) -> Any:
        return _to_maps(child, cls, child_path, dataclasses_too=dataclasses_too)

    if dataclasses_too and dataclasses.is_dataclass(x) and not isinstance(x, type):
        x = {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
    if isinstance(x, Mapping):
        new: KeyedDict = blank(type(x) if isinstance(x, KeyedDict) else cls)
        for key, value in x.items():
            check_key(key, path)
            dict.__setitem__(new, key, inner(value, join(path, key)))
        return new
    if isinstance(x, (list, tuple)):
        return _like_sequence(x, [inner(value, f"{path}[{i}]") for i, value in enumerate(x)])
    return x


def _like_sequence(template: Any, values: list[Any]) -> Any:
    """Returns `values` as a list or tuple of `template`'s class; a namedtuple takes them apart."""
    make = getattr(template, "_make", type(template))
    return make(values)
