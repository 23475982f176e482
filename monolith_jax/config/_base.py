"""The base class of every config, and its fields."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

Restart = Literal["fixed", "free"]

# The key under which a JSON document of a config has its class.
TYPE = "$type"


def field(
    default: Any = dataclasses.MISSING,
    *,
    doc: str,
    restart: Restart = "fixed",
    default_factory: Callable[[], Any] | None = None,
) -> Any:
    """Declares a config field together with what a user has to know of it.

    Args:
      default: the value if none is given; without one (and without a factory) it is required.
      doc: what the field does, its unit, and the reason for the default. Shown by `--help`.
      restart: "free" if a stopped run may go on with another value (it changes when something
        happens, not what is computed); "fixed", the default, if a change needs a new model dir.
      default_factory: called without arguments for the default, for values made at run time.

    Returns:
      A `dataclasses.field` that carries the doc in its metadata.
    """
    metadata = {"doc": doc, "restart": restart}
    if default_factory is not None:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Config:
    """Base of all configs; subclasses are `@dataclass(frozen=True, kw_only=True)`.

    A config that builds something overrides `instantiate`. A base class whose subclasses are
    alternatives (optimizers, say) returns them by name from `choices`, so that a field of that
    type can be switched on the command line: `--optimizer adam`.
    """

    known: ClassVar[dict[str, type["Config"]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # from_dict looks types up here and never imports: JSON from outside cannot run code.
        Config.known[f"{cls.__module__}.{cls.__qualname__}"] = cls

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def instantiate(self) -> Any:
        """Builds what this config describes.

        Raises:
          TypeError: if this config is only data.
        """
        raise TypeError(f"{type(self).__name__} is plain data: there is nothing to instantiate")

    @classmethod
    def choices(cls) -> dict[str, type["Config"]]:
        """Returns the classes that can stand where this one is declared, by their short names."""
        return {}


def field_types(cls: type[Config]) -> dict[str, Any]:
    """Returns the resolved annotation of each dataclass field of `cls`, in order."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]


def named_items(value: Any) -> dict[str, Config] | None:
    """Returns a tuple of configs by their `name` fields, or None if `value` is no such tuple.

    Two items of one name cannot be told apart by it: then there are no named items.
    """
    if not isinstance(value, tuple) or not value:
        return None
    if not all(isinstance(item, Config) for item in value):
        return None
    names = [getattr(item, "name", None) for item in value]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    return {item.name: item for item in value}
