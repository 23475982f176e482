"""Configs to plain JSON values and back, without importing anything."""

import dataclasses
import numbers
import types
import typing
from typing import Any, Literal

from monolith_jax.config._base import TYPE, Config, field_types
from monolith_jax.config._types import is_config, members, type_name
from monolith_jax.errors import ConfigError, did_you_mean


def to_dict(config: Config, *, fixed_only: bool = False) -> dict[str, Any]:
    """Returns `config` as JSON values; each config carries its class under "$type".

    Args:
      config: any config. Values that are neither configs, scalars nor tuples (a Linen module, a
        function) are kept as their `repr`, which tells two runs apart but cannot be read back.
        NumPy's scalars become Python's.
      fixed_only: leave out the fields that may change when a run goes on (`restart="free"`).

    Example:
      >>> from monolith_jax.optimizers import Adagrad
      >>> to_dict(Adagrad(learning_rate=0.5))["learning_rate"]
      0.5
    """
    document: dict[str, Any] = {TYPE: f"{type(config).__module__}.{type(config).__qualname__}"}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        if fixed_only and field.metadata.get("restart") == "free":
            continue
        document[field.name] = _value(getattr(config, field.name), fixed_only)
    return document


def _value(value: Any, fixed_only: bool) -> Any:
    if isinstance(value, Config):
        return to_dict(value, fixed_only=fixed_only)
    if isinstance(value, tuple | list):
        return [_value(item, fixed_only) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and value == float(value):
        return float(value)
    return {"$repr": repr(value)}


def from_dict(document: Any, *, where: str = "config") -> Any:
    """Rebuilds what `to_dict` wrote; classes must be imported already and are never imported here.

    Every value is checked against its field's type, so that a document from outside gives a
    config as valid as one that was written in Python, or an error.

    Args:
      document: JSON values, as `json.load` returns them.
      where: what the document is, for errors.

    Raises:
      ConfigError: names the place in the document: an unknown class or field, a missing field, a
        value of another type, or one that was kept only as its `repr`.

    Example:
      >>> from monolith_jax.optimizers import Adagrad
      >>> from_dict(to_dict(Adagrad(learning_rate=0.5))) == Adagrad(learning_rate=0.5)
      True
    """
    try:
        return _config(document, (Config,), where)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None


def _config(document: Any, bases: tuple[type[Config], ...], where: str) -> Config:
    """Builds a config of one of `bases` from its document."""
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: expected a config, got {_shown(document)}")
    if "$repr" in document:
        raise ConfigError(
            f"{where}: {_shown(document['$repr'])} is no config and cannot be read back"
        )
    name = document.get(TYPE)
    cls = Config.known.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ConfigError(f"{where}: unknown config class {_shown(name)}; import its module first")
    if not issubclass(cls, bases):
        expected = " or ".join(base.__name__ for base in bases) or "no config"
        raise ConfigError(f"{where}: expected {expected}, got {name}")
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{where}: {name} is a base class that cannot be made")
    return _build(cls, {k: v for k, v in document.items() if k != TYPE}, where)


def _build(cls: type[Config], document: dict[str, Any], where: str) -> Config:
    hints, values = field_types(cls), {}
    for key, value in document.items():
        if key not in hints:
            raise ConfigError(
                f"{where}: {cls.__name__} has no field {key!r}: {did_you_mean(key, hints)}"
            )
        values[key] = _restore(value, hints[key], f"{where}.{key}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _restore(value: Any, hint: Any, where: str) -> Any:
    """Returns the value of a field of type `hint`, or raises a ConfigError."""
    if isinstance(value, dict):
        anything = hint in (Any, object)
        bases = (Config,) if anything else tuple(m for m in members(hint) if is_config(m))
        return _config(value, bases, where)
    if len(members(hint)) > 1:
        return _restore_union(value, hint, where)
    if hint in (Any, object):
        return _restore_tuple(value, (Any, ...), where) if isinstance(value, list) else value
    if typing.get_origin(hint) is tuple or hint is tuple:
        return _restore_tuple(value, typing.get_args(hint) or (Any, ...), where)
    if is_config(hint):
        return _config(value, (hint,), where)
    if typing.get_origin(hint) is Literal:
        if any(value == arg and type(value) is type(arg) for arg in typing.get_args(hint)):
            return value
    elif type(value) is hint and hint in (bool, int, float, str, types.NoneType):
        return value
    elif hint is float and type(value) is int:
        return _float(value, where)
    raise ConfigError(f"{where}: {_shown(value)} is not of type {type_name(hint)}")


def _restore_union(value: Any, hint: Any, where: str) -> Any:
    # An integer stays one where the union has both: the value's own type comes first.
    for member in sorted(members(hint), key=lambda member: type(value) is not member):
        try:
            return _restore(value, member, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where}: {_shown(value)} is not of type {type_name(hint)}")


def _restore_tuple(value: Any, args: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list, got {_shown(value)}")
    variable = len(args) == 2 and args[1] is Ellipsis
    hints = [args[0]] * len(value) if variable else list(args)
    if len(hints) != len(value):
        raise ConfigError(f"{where}: expected {len(hints)} values, got {len(value)}")
    pairs = enumerate(zip(value, hints, strict=True))
    return tuple(_restore(item, hint, f"{where}[{i}]") for i, (item, hint) in pairs)


def _float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{where}: {_shown(value)} does not fit a float") from None


def _shown(value: Any) -> str:
    """Returns a short repr: documents come from outside, and an error is one line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
