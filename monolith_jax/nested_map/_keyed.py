"""A dict whose keys are checked on every way in, and read and written as attributes."""

import copyreg
from collections.abc import Iterator
from typing import Any, Self, TypeVar

from monolith_jax.nested_map._keys import (
    MissingAttributeError,
    MissingKeyError,
    check_key,
)

M = TypeVar("M", bound="KeyedDict")


class KeyedDict(dict[str, Any]):
    """The dict half of `NestedMap`.

    `__getitem__` is dict's own: jax reads every value of every tree through it, and a method of
    ours there would cost more than all the rest. `__missing__` is where a bad key lands.
    """

    __slots__ = ()

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        KeyedDict.update(self, *args, **kwargs)

    @staticmethod
    def CheckKey(key: object) -> None:
        """Raises unless `key` may be a key of a map.

        Raises:
          NestedMapError: it is no string, no identifier as a whole, or an attribute of dict.

        Example:
          >>> KeyedDict.CheckKey("user_id")
        """
        check_key(key)

    def __setitem__(self, key: str, value: Any) -> None:
        check_key(key)
        super().__setitem__(key, value)

    def __missing__(self, key: object) -> Any:
        raise MissingKeyError(key, tuple(self))

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise MissingKeyError(key, tuple(self))
        super().__delitem__(key)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise MissingAttributeError(name, tuple(self))

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise MissingAttributeError(name, tuple(self))
        super().__delitem__(name)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Returns the value of `key`, which is set to `default` if it is not there.

        Example:
          >>> KeyedDict(a=1).setdefault("a", 2)
          1
        """
        check_key(key)
        return super().setdefault(key, default)

    def update(self, /, *args: Any, **kwargs: Any) -> None:
        """`dict.update`, all or nothing: a bad key changes nothing.

        For a merge that goes into nested maps see `Update`.

        Example:
          >>> m = KeyedDict(a=1)
          >>> m.update({"b": 2}, c=3)
          >>> sorted(m)
          ['a', 'b', 'c']
        """
        new = dict(*args, **kwargs)
        for key in new:
            check_key(key)
        super().update(new)

    def __or__(self, other: Any) -> Self:  # type: ignore[override]
        if not isinstance(other, dict):
            return NotImplemented
        merged = self.copy()
        KeyedDict.update(merged, other)
        return merged

    def __ror__(self, other: Any) -> Self:  # type: ignore[override]
        if not isinstance(other, dict):
            return NotImplemented
        merged = blank(type(self))
        KeyedDict.update(merged, other)
        dict.update(merged, self)
        return merged

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]
        KeyedDict.update(self, other)
        return self

    def copy(self) -> Self:
        """Returns a shallow copy of the same class; nested maps are shared.

        Example:
          >>> m = KeyedDict(a=[])
          >>> m.copy().a is m.a
          True
        """
        new = blank(type(self))
        dict.update(new, self)
        return new

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        # Items come back through __setitem__ under every pickle protocol, and are checked there.
        items: Iterator[tuple[str, Any]] = iter(self.items())
        return copyreg.__newobj__, (type(self),), None, None, items  # type: ignore[attr-defined]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)


def blank(cls: type[M]) -> M:
    """Returns an empty map of class `cls` without running a constructor of the user's."""
    return dict.__new__(cls)
