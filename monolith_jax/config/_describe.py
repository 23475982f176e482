"""What a config holds, flat: for `--help`, and for telling two configs apart."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from monolith_jax.config._base import Config, Restart, field_types, named_items


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
            if choices := _choices(hint):
                shown = next((n for n, c in choices.items() if c is type(value)), "")
                yield FieldInfo(path, " | ".join(choices), shown or value, doc, restart)
            yield from describe(value, f"{path}.")
        else:
            yield FieldInfo(path, type_name(hint), value, doc, restart)


def _choices(hint: Any) -> dict[str, type[Config]]:
    return hint.choices() if isinstance(hint, type) and issubclass(hint, Config) else {}


def type_name(hint: Any) -> str:
    """Returns a type annotation the way a reader of `--help` wants it.

    Example:
      >>> type_name(int), type_name(tuple[int, ...]), type_name(str | None)
      ('int', 'tuple[int, ...]', 'str | None')
    """
    text = hint.__name__ if isinstance(hint, type) and hint.__module__ == "builtins" else str(hint)
    if getattr(hint, "__args__", None):
        text = str(hint)
    return text.replace("typing.Literal", "one of ").replace("typing.", "")


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Returns the dotted paths at which two `to_dict` documents differ, with both values.

    Example:
      >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
      ['a.b: 1 -> 3']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            a, b = old.get(key, "(absent)"), new.get(key, "(absent)")
            found += differences(a, b, f"{prefix}{key}.")
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = []
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            name = a.get("name", i) if isinstance(a, dict) else i
            found += differences(a, b, f"{prefix}{name}.")
        return found
    return [] if old == new else [f"{prefix.removesuffix('.')}: {old} -> {new}"]
