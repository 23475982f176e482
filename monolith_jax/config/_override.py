"""Typed overrides: `{"input.batch_size": "512"}` onto a config."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from monolith_jax.config._base import Config, field_types, named_items
from monolith_jax.config._describe import describe
from monolith_jax.config._parse import parse
from monolith_jax.errors import ConfigError, did_you_mean, nearest

ConfigT = TypeVar("ConfigT", bound=Config)


def override(config: ConfigT, changes: Mapping[str, str]) -> ConfigT:
    """Returns `config` with fields replaced, each value parsed by its field's type.

    The changes are made at once: each config is rebuilt and validates itself a single time, with
    all of its new values, and the order of the changes does not matter. A field of alternatives
    that is set itself (`optimizer`) is set before its own fields (`optimizer.learning_rate`).

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
    try:
        return _apply(config, dict(changes), "")
    except _UnknownFieldError as error:
        raise ConfigError(f"{error}: {_suggestion(config, error)}") from None


class _UnknownFieldError(Exception):
    """A path whose component `key` is no field of `owner`."""

    def __init__(self, owner: Config, key: str, path: str) -> None:
        within = "" if path == key else f" (in {path})"
        super().__init__(f"{type(owner).__name__} has no field {key!r}{within}")
        self.owner, self.key = owner, key


def _suggestion(root: Config, error: _UnknownFieldError) -> str:
    """Returns the near misses: the name in other groups, else what resembles it most."""
    fields = field_types(type(error.owner))
    by_leaf: dict[str, list[str]] = {}
    for info in describe(root):
        by_leaf.setdefault(info.path.rpartition(".")[2], []).append(info.path)
    best = error.key if error.key in by_leaf else None
    best = best or next(iter(nearest(error.key, [*by_leaf, *fields], n=1)), None)
    if best is None or best in fields:
        return did_you_mean(error.key, fields)
    more = " or ..." if len(by_leaf[best]) > 3 else ""
    return f"did you mean {' or '.join(by_leaf[best][:3])}{more}?"


def _apply(config: Any, changes: dict[str, str], prefix: str) -> Any:
    """Returns `config` after changes whose paths begin at its fields."""
    hints = field_types(type(config))
    grouped: dict[str, dict[str, str]] = {}
    for path, text in changes.items():
        key, dot, rest = path.partition(".")
        if key not in hints or (dot and not rest):
            raise _UnknownFieldError(config, key if rest else path, f"{prefix}{path}")
        grouped.setdefault(key, {})[rest] = text
    values = {
        key: _changed(getattr(config, key), hints[key], group, f"{prefix}{key}")
        for key, group in grouped.items()
    }
    try:
        return dataclasses.replace(config, **values)
    except ValueError as error:
        paths = ", ".join(f"{prefix}{path}" for path in changes)
        raise ConfigError(f"{paths}: {error}") from error


def _changed(value: Any, hint: Any, changes: dict[str, str], path: str) -> Any:
    """Returns a field's new value; the change at "" is that of the field itself."""
    if "" in changes:
        value = parse(changes.pop(""), hint, path)
    if not changes:
        return value
    if isinstance(value, Config):
        return _apply(value, changes, f"{path}.")
    items = named_items(value)
    if items is None:
        first = next(iter(changes))
        raise ConfigError(f"{path}.{first}: {path} holds {value!r}, which has no fields")
    by_name: dict[str, dict[str, str]] = {}
    for rest, text in changes.items():
        name = _item_name(rest, items, path)
        by_name.setdefault(name, {})[rest[len(name) + 1 :]] = text
    return tuple(
        _apply(item, by_name[name], f"{path}.{name}.") if name in by_name else item
        for name, item in items.items()
    )


def _item_name(rest: str, items: Mapping[str, Config], path: str) -> str:
    """Returns the name that a path begins with; names may have dots, the longest one counts."""
    names = [name for name in items if rest == name or rest.startswith(f"{name}.")]
    if not names:
        wrong = rest.partition(".")[0]
        raise ConfigError(f"{path}.{rest}: no item {wrong!r}: {did_you_mean(wrong, items)}")
    name = max(names, key=len)
    if rest == name:
        raise ConfigError(f"{path}.{rest} is a group of fields: set one, {path}.{rest}.FIELD")
    return name
