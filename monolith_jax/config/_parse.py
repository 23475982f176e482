"""A text from the command line as a value of a field's type."""

import types
import typing
from typing import Any, Literal

from monolith_jax.config._base import Config
from monolith_jax.config._types import is_config, members, type_name
from monolith_jax.errors import ConfigError, did_you_mean

_EXPECTED = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


def parse(text: str, hint: Any, path: str) -> Any:
    """Parses `text` as a value of the type `hint`.

    Args:
      text: as `override` describes.
      hint: the field's type.
      path: the field's dotted path, for the error.

    Raises:
      ConfigError: the text is no such value, or no text can be.

    Example:
      >>> parse("64,32", tuple[int, ...], "hidden"), parse("none", float | None, "rate")
      ((64, 32), None)
    """
    alternatives = members(hint)
    if len(alternatives) > 1:
        return _parse_union(text, alternatives, path)
    if typing.get_origin(hint) is Literal:
        return _parse_literal(text, typing.get_args(hint), path)
    if typing.get_origin(hint) is tuple:
        return _parse_tuple(text, hint, path)
    if is_config(hint):
        return _parse_choice(text, hint, path)
    return _parse_scalar(text, hint, path)


def _parse_union(text: str, alternatives: tuple[Any, ...], path: str) -> Any:
    if types.NoneType in alternatives and text.lower() == "none":
        return None
    errors = []
    for member in alternatives:
        if member is not types.NoneType:
            try:
                return parse(text, member, path)
            except ConfigError as error:
                errors.append(str(error).removeprefix(f"{path}: "))
    raise ConfigError(f"{path}: {'; or '.join(errors)}")


def _parse_literal(text: str, values: tuple[Any, ...], path: str) -> Any:
    by_text = {str(value): value for value in values}
    if text not in by_text:
        raise ConfigError(f"{path}: {text!r} is not one of {', '.join(by_text)}")
    return by_text[text]


def _parse_tuple(text: str, hint: Any, path: str) -> tuple[Any, ...]:
    args = typing.get_args(hint)
    parts = [part.strip() for part in text.split(",")]
    if parts[-1] == "":  # "" is (), and "64," is (64,), as in Python
        parts.pop()
    if "" in parts:
        raise ConfigError(f"{path}: {text!r} has an empty item")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(parse(part, args[0], path) for part in parts)
    if len(parts) != len(args):
        raise ConfigError(f"{path}: {text!r} is not of type {type_name(hint)}")
    return tuple(parse(part, arg, path) for part, arg in zip(parts, args, strict=True))


def _parse_choice(text: str, hint: type[Config], path: str) -> Config:
    choices = hint.choices()
    if not choices:
        raise ConfigError(f"{path} is a group of fields: set one of them, {path}.FIELD")
    if text not in choices:
        raise ConfigError(f"{path}: {text!r} is no {hint.__name__}: {did_you_mean(text, choices)}")
    try:
        return choices[text]()
    except TypeError as error:
        raise ConfigError(f"{path}: {text} cannot be made without arguments: {error}") from error


def _parse_scalar(text: str, hint: Any, path: str) -> Any:
    if hint not in _EXPECTED:
        raise ConfigError(
            f"{path}: a value of type {type_name(hint)} cannot be given on the command line"
        )
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        return hint(text)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{path}: {text!r} is not {_EXPECTED[hint]}") from error
