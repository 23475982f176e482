"""What a config holds, flat: for `--help`, and for telling two configs apart."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from monolith_jax.config._base import TYPE, Config, Restart, field_types, named_items
from monolith_jax.config._types import choices, type_name


class FieldInfo(NamedTuple):
    """One overridable field: its dotted path, type as text, value, doc and restart rule."""

    path: str
    type: str
    value: Any
    doc: str
    restart: Restart


def describe(config: Config, prefix: str = "") -> Iterator[FieldInfo]:
    """Yields every field of `config` and of the configs within it, depth first, in order.

    Fields of tuples of named configs appear under the item's name: `tables.user.dim`. A field
    of alternatives (an optimizer) appears once by itself and then with the fields of its value.
    """
    for field, hint in zip(
        dataclasses.fields(config),  # type: ignore[arg-type]
        field_types(type(config)).values(),
        strict=True,
    ):
        value, path = getattr(config, field.name), f"{prefix}{field.name}"
        doc = field.metadata.get("doc", "")
        restart = field.metadata.get("restart", "fixed")
        items = named_items(value)
        if items is not None:
            for name, item in items.items():
                yield from describe(item, f"{path}.{name}.")
        elif isinstance(value, Config):
            if named := choices(hint):
                shown = next((n for n, c in named.items() if c is type(value)), "")
                yield FieldInfo(path, type_name(hint), shown or value, doc, restart)
            yield from describe(value, f"{path}.")
        else:
            yield FieldInfo(path, type_name(hint), value, doc, restart)


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Returns the dotted paths at which two `to_dict` documents differ, with both values.

    Items of lists are told apart by their names if they have any, else by position. A config of
    another class is one difference, not one for each of its fields.

    Example:
      >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
      ['a.b: 1 -> 3']
      >>> differences({"t": [{"name": "x"}]}, {"t": [{"name": "x"}, {"name": "y"}]})
      ["t.y: (absent) -> {'name': 'y'}"]
    """
    if isinstance(old, dict) and isinstance(new, dict) and old.get(TYPE) == new.get(TYPE):
        return _by_key(old, new, prefix, sorted(old.keys() | new.keys()))
    if isinstance(old, list) and isinstance(new, list):
        a, b = _named(old), _named(new)
        if a is not None and b is not None:
            order = [name for name in a if name in b] != [name for name in b if name in a]
            moved = [f"{prefix}order: {', '.join(a)} -> {', '.join(b)}"] if order else []
            return _by_key(a, b, prefix, list({**a, **b})) + moved
        if len(old) == len(new):
            pairs = enumerate(zip(old, new, strict=True))
            return [line for i, (x, y) in pairs for line in differences(x, y, f"{prefix}{i}.")]
    # NaN is not equal to itself, and yet no difference.
    if old == new or (old != old and new != new):
        return []
    return [f"{prefix.removesuffix('.')}: {_brief(old)} -> {_brief(new)}"]


_ABSENT: dict[str, Any] = {"$absent": True}


def _by_key(old: dict[str, Any], new: dict[str, Any], prefix: str, keys: list[str]) -> list[str]:
    found = []
    for key in keys:
        a, b = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if a is _ABSENT or b is _ABSENT:
            found.append(f"{prefix}{key}: {_brief(a)} -> {_brief(b)}")
        else:
            found += differences(a, b, f"{prefix}{key}.")
    return found


def _named(items: list[Any]) -> dict[str, Any] | None:
    """Returns the items of a list by their names, if each has one of its own."""
    if not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in items):
        return None
    by_name = {item["name"]: item for item in items}
    return by_name if len(by_name) == len(items) else None


def _brief(value: Any) -> str:
    if value is _ABSENT:
        return "(absent)"
    if isinstance(value, dict) and isinstance(value.get(TYPE), str):
        return value[TYPE].rpartition(".")[2]
    return str(value)
