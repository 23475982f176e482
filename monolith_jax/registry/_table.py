"""The table of registered models: every key to its class."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from monolith_jax.registry._errors import DuplicateModelError
from monolith_jax.registry._keys import full_key, short_key
from monolith_jax.registry._params import SingleTaskModelParams
from monolith_jax.registry._site import Site, find_site

ModelT = TypeVar("ModelT", bound=type[SingleTaskModelParams])

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A registered class and the place of its registration."""

    cls: type[SingleTaskModelParams]
    site: Site


class Table:
    """Keys to classes; a class has one or two keys, both or none of which are in the table."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._logged: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> type[SingleTaskModelParams]:
        return self._entries[key].cls

    def classes(self) -> dict[str, type[SingleTaskModelParams]]:
        """Returns every key and its class, sorted."""
        return {key: self._entries[key].cls for key in sorted(self._entries)}

    def models(self) -> Iterator[Entry]:
        """Yields each model once, by short key."""
        for key in sorted(self._entries):
            if key == short_key(self._entries[key].cls):
                yield self._entries[key]

    def register(self, cls: type[SingleTaskModelParams]) -> None:
        """Adds a class under both keys, or raises `DuplicateModelError` and adds nothing."""
        new = Entry(cls, find_site(cls))
        keys = dict.fromkeys((full_key(cls), short_key(cls)))
        for key in keys:
            if key in self._entries:
                self._check_replaceable(key, self._entries[key], new)
        if cls.__module__ not in self._logged:
            _logger.info("Registering models from module: %s", cls.__module__)
            self._logged.add(cls.__module__)
        for key in keys:
            _logger.debug("Registering model %s", key)
            self._entries[key] = new

    def _check_replaceable(self, key: str, old: Entry, new: Entry) -> None:
        if full_key(old.cls) == full_key(new.cls) and new.site.repeats(old.site):
            return
        raise DuplicateModelError(
            f"duplicate model registered for key {key}: {full_key(new.cls)} at {new.site}, and "
            f"before it {full_key(old.cls)} at {old.site}"
        )

    def snapshot(self) -> dict[str, Entry]:
        """Returns a copy of the entries."""
        return dict(self._entries)

    def restore(self, entries: dict[str, Entry]) -> None:
        """Puts back what `snapshot` returned."""
        self._entries = dict(entries)

    def forget_unloaded(self, before: dict[str, Entry]) -> None:
        """Drops what was added since `before` by modules that did not stay imported.

        A module that fails half-way registers classes that belong to nothing.
        """
        for key, entry in list(self._entries.items()):
            if before.get(key) is not entry and entry.cls.__module__ not in sys.modules:
                del self._entries[key]


TABLE = Table()


def RegisterSingleTaskModel(src_cls: ModelT) -> ModelT:
    """Class decorator: makes a model known under `<module>.<Class>` and the short key.

    Executing the same module again (`importlib.reload`, a notebook's cell) replaces the class.

    Args:
      src_cls: a subclass of `SingleTaskModelParams`.

    Returns:
      `src_cls` itself.

    Raises:
      TypeError: `src_cls` is anything else.
      DuplicateModelError: a ValueError; another model has one of the keys, or the class is
        registered twice.

    Example:
      >>> from monolith_jax.registry import GetClass, SingleTaskModelParams
      >>> @RegisterSingleTaskModel
      ... class Example(SingleTaskModelParams):
      ...     "A model."
      >>> GetClass(f"{Example.__module__}.Example") is Example
      True
      >>> RegisterSingleTaskModel(3)
      Traceback (most recent call last):
      ...
      TypeError: RegisterSingleTaskModel takes a subclass of SingleTaskModelParams, got 3
    """
    is_model = isinstance(src_cls, type) and issubclass(src_cls, SingleTaskModelParams)
    if not is_model or src_cls is SingleTaskModelParams:
        raise TypeError(
            f"RegisterSingleTaskModel takes a subclass of SingleTaskModelParams, got {src_cls!r}"
        )
    TABLE.register(src_cls)
    return src_cls
