"""From a name that a user gives to one model class."""

import logging
from typing import Any

from monolith_jax.errors import nearest
from monolith_jax.registry._attempt import FAILURES, ImportFailure
from monolith_jax.registry._errors import UnknownModelError
from monolith_jax.registry._imports import import_everything, import_for_key
from monolith_jax.registry._keys import full_key, short_key, short_module
from monolith_jax.registry._params import SingleTaskModelParams
from monolith_jax.registry._table import TABLE

_logger = logging.getLogger(__name__)


def GetAllRegisteredClasses() -> dict[str, type[SingleTaskModelParams]]:
    """Returns every key, full and short, with its class; warns if there is none.

    Imports all bundled tasks and the entry points of installed packages first; what fails to
    import is logged and left out. The dict is a copy.

    Example:
      >>> isinstance(GetAllRegisteredClasses(), dict)
      True
    """
    import_everything()
    classes = TABLE.classes()
    if not classes:
        _logger.warning("No classes registered.")
    return classes


def GetClass(class_key: str) -> type[SingleTaskModelParams]:
    """Returns the model class that a name stands for.

    A name is a full key, a short key, or a dotted suffix of either that only one model has:
    `monolith_jax.tasks.movielens.DeepFM`, `movielens.DeepFM`, `DeepFM`. A key wins over a suffix.
    Modules are imported only from the task roots and entry points: a name never imports any other
    module. Name the module itself for that, with `import_module` or `--module`.

    Args:
      class_key: the name.

    Raises:
      UnknownModelError: a LookupError; no model has the name (lists near misses), or several
        models have the suffix (lists them). The known models are logged.
      ModelImportError: a LookupError; the module that the name points to fails to import.

    Example:
      >>> GetClass("movielens.DeepFn")
      Traceback (most recent call last):
      ...
      monolith_jax.registry._errors.UnknownModelError: no model 'movielens.DeepFn': ...
    """
    if class_key not in TABLE:
        import_for_key(class_key)
    if class_key not in TABLE:
        import_everything()
    if class_key in TABLE:
        return TABLE[class_key]
    found = {
        full_key(cls): cls for key, cls in TABLE.classes().items() if key.endswith(f".{class_key}")
    }
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise UnknownModelError(
            f"{class_key!r} is ambiguous, write one of: "
            f"{', '.join(sorted(short_key(cls) for cls in found.values()))}"
        )
    raise _unknown(class_key)


def GetParams(class_key: str) -> Any:
    """Returns the config of a model: makes an instance of its class and calls `task()`.

    Args:
      class_key: as for `GetClass`.

    Returns:
      What `task()` returns: a `TaskConfig`, or anything with `instantiate()`.

    Raises:
      LookupError: as for `GetClass`.
    """
    return GetClass(class_key)().task()


def _unknown(key: str) -> Exception:
    """Returns the error for a name that fits nothing, after logging all that is known."""
    for known in TABLE.classes():
        _logger.info("Known model: %s", known)
    for failure in FAILURES.values():
        if _belongs(key, failure):
            error = failure.error()
            error.__cause__ = failure.cause
            return error
    text = f"no model {key!r}: {_near(key)}"
    if FAILURES:
        text += f". Modules that fail to import: {'; '.join(map(str, FAILURES.values()))}"
    return UnknownModelError(text)


def _belongs(key: str, failure: ImportFailure) -> bool:
    """Whether a key asks for a model of the module that failed."""
    module, path = failure.module.partition(" ")[0], key.rpartition(".")[0]
    return bool(path) and f".{module}".endswith((f".{path}", f".{short_module(path)}"))


def _near(key: str) -> str:
    """Returns the near misses by full key, short key and class name alike, as short keys."""
    names: dict[str, str] = {}
    for entry in TABLE.models():
        short = short_key(entry.cls)
        names |= {full_key(entry.cls): short, short: short, entry.cls.__name__: short}
    close = list(dict.fromkeys(names[name] for name in nearest(key, names)))
    if close:
        return f"did you mean {' or '.join(close)}?"
    valid = ", ".join(sorted(set(names.values()))) or "(none)"
    return f"valid choices: {valid} (models of a module of your own need --module MODULE)"
