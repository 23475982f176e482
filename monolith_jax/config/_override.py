"""Typed overrides: `{"input.batch_size": "512"}` onto a config."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from monolith_jax.config._base import Config, field_types, named_items
from monolith_jax.errors import ConfigError, did_you_mean

ConfigT = TypeVar("ConfigT", bound=Config)


def override(config: ConfigT, changes: Mapping[str, str]) -> ConfigT:
    """Returns `config` with fields replaced, each value parsed by its field's type.

    Args:
      config: any config.
      changes: dotted path to text. A path goes through nested configs by field name and through
        tuples of named configs by the item's name (`tables.user.dim`). Texts: numbers as Python
        writes them (`1_000`, `1e-3`), `true`/`false`, `none` where the type allows it, tuples as
        `64,32` (empty text: an empty tuple), and for a field of alternatives the name of one.

    Raises:
      ConfigError: names the path, what was expected, and the nearest valid name.

    Example:
      >>> from dataclasses import dataclass
      >>> from monolith_jax.config import Config, field
      >>> @dataclass(frozen=True, kw_only=True)
      ... class Reader(Config):
      ...     batch_size: int = field(512, doc="Examples a step.")
      >>> override(Reader(), {"batch_size": "1_024"})
      Reader(batch_size=1024)
    """
    for path, text in changes.items():
        config = _set(config, path.split("."), text, path)
    return config


def _set(config: Any, keys: list[str], text: str, path: str) -> Any:
    """Returns `config` with the value at `keys` parsed from `text`."""
    key, rest = keys[0], keys[1:]
    hints = field_types(type(config))
    if key not in hints:
        raise ConfigError(
            f"{type(config).__name__} has no field {key!r}{_within(path, key)}: "
            f"{did_you_mean(key, hints)}"
        )
    old = getattr(config, key)
    if not rest:
        return _replace(config, {key: parse(text, hints[key], path)}, path)
    if isinstance(old, Config):
        return _replace(config, {key: _set(old, rest, text, path)}, path)
    items = named_items(old)
    if items is None or len(rest) < 2:
        hint = f", use {path}.FIELD" if items is not None and rest[0] in items else ""
        raise ConfigError(f"{path}: {key!r} holds {old!r}, which has no field {rest[0]!r}{hint}")
    if rest[0] not in items:
        raise ConfigError(f"{path}: no {key} named {rest[0]!r}: {did_you_mean(rest[0], items)}")
    items[rest[0]] = _set(items[rest[0]], rest[1:], text, path)
    return _replace(config, {key: tuple(items.values())}, path)


def _within(path: str, key: str) -> str:
    return "" if path == key else f" (in {path})"


def _replace(config: Any, changes: dict[str, Any], path: str) -> Any:
    try:
        return dataclasses.replace(config, **changes)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse(text: str, hint: Any, path: str) -> Any:
    """Parses `text` as a value of the type `hint`; `path` is for the error."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(text, args, path)
    if origin is Literal:
        if text not in args:
            raise ConfigError(f"{path}: {text!r} is not one of {', '.join(map(str, args))}")
        return text
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return tuple(parse(part.strip(), args[0], path) for part in text.split(",") if part.strip())
    if isinstance(hint, type) and issubclass(hint, Config):
        return _choice(text, hint, path)
    return _parse_scalar(text, hint, path)


def _parse_union(text: str, args: tuple[Any, ...], path: str) -> Any:
    if type(None) in args and text.lower() == "none":
        return None
    errors = []
    for arg in args:
        if arg is not type(None):
            try:
                return parse(text, arg, path)
            except ConfigError as error:
                errors.append(str(error))
    raise ConfigError("; or ".join(errors))


def _choice(text: str, hint: type[Config], path: str) -> Config:
    choices = hint.choices()
    if text not in choices:
        raise ConfigError(
            f"{path}: {text!r} is no {hint.__name__}: {did_you_mean(text, choices)}"
            if choices
            else f"{path} is a group of fields: set one of them, {path}.FIELD"
        )
    try:
        return choices[text]()
    except TypeError as error:
        raise ConfigError(f"{path}: {text} cannot be made without arguments: {error}") from error


_EXPECTED = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


def _parse_scalar(text: str, hint: Any, path: str) -> Any:
    if hint not in _EXPECTED:
        raise ConfigError(f"{path}: a value of type {hint} cannot be given on the command line")
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        return hint(text)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{path}: {text!r} is not {_EXPECTED[hint]}") from error
