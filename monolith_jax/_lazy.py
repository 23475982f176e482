"""Packages whose names are loaded when they are first used, so that importing them stays quick."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(
    namespace: dict[str, Any], homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns a package's `__getattr__` and `__dir__` (PEP 562).

    Args:
      namespace: the package's `globals()`; what is loaded is put there.
      homes: name -> the module of the package that defines it.

    Example:
      >>> package = {"__name__": "monolith_jax", "__version__": "0"}
      >>> getattr_, dir_ = lazy(package, {"DataError": "errors"})
      >>> dir_()
      ['DataError', '__name__', '__version__']
      >>> getattr_("DataError").__name__
      'DataError'
      >>> getattr_("other")
      Traceback (most recent call last):
        ...
      AttributeError: module 'monolith_jax' has no attribute 'other'
    """

    def load(name: str) -> Any:
        package = namespace["__name__"]
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        namespace[name] = value
        return value

    def names() -> list[str]:
        return sorted({*namespace, *homes})

    return load, names
