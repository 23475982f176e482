"""Configs to plain JSON values and back, without importing anything."""

import dataclasses
import types
import typing
from typing import Any

from monolith_jax.config._base import Config, field_types
from monolith_jax.errors import ConfigError, did_you_mean

TYPE = "$type"


def to_dict(config: Config, *, fixed_only: bool = False) -> dict[str, Any]:
    """Returns `config` as JSON values; each config carries its class under "$type".

    Args:
      config: any config. Values that are neither configs, scalars nor tuples (a Linen module, a
        function) are kept as their `repr`, which tells two runs apart but cannot be read back.
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
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"$repr": repr(value)}


def from_dict(document: Any, *, where: str = "config") -> Any:
    """Rebuilds what `to_dict` wrote; classes must be imported already and are never imported here.

    Raises:
      ConfigError: an unknown class or field, or a value that was kept only as its `repr`.

    Example:
      >>> from monolith_jax.optimizers import Adagrad
      >>> from_dict(to_dict(Adagrad(learning_rate=0.5))) == Adagrad(learning_rate=0.5)
      True
    """
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: expected a config, got {document!r}")
    if "$repr" in document:
        raise ConfigError(f"{where}: {document['$repr']} is no config and cannot be read back")
    name = document.get(TYPE)
    cls = Config.known.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ConfigError(f"{where}: unknown config class {name!r}; import its module first")
    hints, values = field_types(cls), {}
    for key, value in document.items():
        if key == TYPE:
            continue
        if key not in hints:
            raise ConfigError(f"{where}: {name} has no field {key!r}: {did_you_mean(key, hints)}")
        values[key] = _restore(value, hints[key], f"{where}.{key}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _restore(value: Any, hint: Any, where: str) -> Any:
    if isinstance(value, dict):
        return from_dict(value, where=where)
    if isinstance(value, list):
        inner = _item_type(hint)
        return tuple(_restore(v, inner, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool) and not isinstance(value, hint):
        raise ConfigError(f"{where}: {value!r} is not of type {hint.__name__}")
    return value


def _item_type(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hints = [arg for arg in typing.get_args(hint) if typing.get_origin(arg) is tuple]
        hint = hints[0] if hints else None
    args = typing.get_args(hint)
    return args[0] if args else None
