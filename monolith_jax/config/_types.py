"""The types that config fields are annotated with, taken apart."""

import types
import typing
from typing import Any, Literal

from monolith_jax.config._base import Config


def members(hint: Any) -> tuple[Any, ...]:
    """Returns the alternatives of a union, or the type itself as the only one.

    Example:
      >>> members(int | None)
      (<class 'int'>, <class 'NoneType'>)
      >>> members(int)
      (<class 'int'>,)
    """
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def is_config(hint: Any) -> bool:
    """Returns whether a type is a config class."""
    return isinstance(hint, type) and issubclass(hint, Config)


def choices(hint: Any) -> dict[str, type[Config]]:
    """Returns the config classes that a type admits, by their short names; {} for most types."""
    found: dict[str, type[Config]] = {}
    for member in members(hint):
        if is_config(member):
            found |= member.choices()
    return found


def type_name(hint: Any) -> str:
    """Returns a type annotation the way a reader of `--help` wants it.

    Example:
      >>> type_name(int), type_name(tuple[int, ...]), type_name(str | None)
      ('int', 'tuple[int, ...]', 'str | None')
      >>> type_name(Literal["sum", "mean"])
      'sum | mean'
    """
    alternatives = members(hint)
    if len(alternatives) > 1:
        return " | ".join(type_name(member) for member in alternatives)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(str(arg) for arg in args)
    if origin is tuple:
        return f"tuple[{', '.join('...' if a is Ellipsis else type_name(a) for a in args)}]"
    if hint is types.NoneType:
        return "None"
    if is_config(hint) and hint.choices():
        return " | ".join(hint.choices())
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
