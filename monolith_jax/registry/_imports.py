"""What gets imported for a model's name, and nothing else."""

import importlib
import logging
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

from monolith_jax.errors import ConfigError
from monolith_jax.registry import _entry_points
from monolith_jax.registry._attempt import ImportFailure, attempt
from monolith_jax.registry._keys import MIGRATED_ROOT, TASK_ROOT, short_module
from monolith_jax.registry._table import TABLE

_logger = logging.getLogger(__name__)


def import_module(name: str) -> ModuleType:
    """Imports a module that the user names, for the models that it registers.

    This runs the module's code: it is the door for modules outside the task roots and entry
    points, and only for names that the user gave as a module's.

    Args:
      name: dotted name, found on `sys.path`.

    Raises:
      ConfigError: `name` is no dotted name.
      UnknownModelError: there is no such module.
      ModelImportError: the module is there and fails; the real exception is its `__cause__`.

    Example:
      >>> import_module("json").__name__
      'json'
    """
    if not _is_dotted_name(name):
        raise ConfigError(f"{name!r} is no dotted module name, such as my_models.ads")
    failure = attempt(name)
    if failure is None:
        return importlib.import_module(name)
    if failure.missing:
        hint = "is the folder that holds it on PYTHONPATH?"
        raise type(failure.error())(f"{failure} ({failure.cause}); {hint}") from failure.cause
    raise failure.error() from failure.cause


def ImportAllParams(
    task_root: str = TASK_ROOT,
    task_dirs: Sequence[str] | None = None,
    require_success: bool = False,
) -> bool:
    """Imports the modules that register models: all of a root's tasks, or those given.

    A task is a module or package of the root; if it has a `params.params` (Monolith's convention:
    a module that imports all the task's models), that is imported too, else its `params`. A task
    that fails to import is logged as an error with its cause; the others are imported all the
    same.

    Args:
      task_root: package that holds the tasks.
      task_dirs: names of tasks; None, the default, takes all that are there except those whose
        names begin with `_`. (The original's default is (), which imports nothing.)
      require_success: raise if nothing could be imported.

    Returns:
      Whether anything was imported.

    Raises:
      LookupError: nothing was imported and `require_success` is set: `ModelImportError` with
        the first real cause chained, or `UnknownModelError` if there is no such task.

    Example:
      >>> ImportAllParams(task_dirs=())
      False
    """
    failures: list[ImportFailure] = []
    success = False
    if task_dirs is None:
        task_dirs = list(_tasks_of(task_root, failures))
    for task in task_dirs:
        failure = _import_task(f"{task_root}.{task}")
        success |= failure is None
        failures += [failure] if failure else []
    for failure in failures:
        _logger.error("Could not import %s", failure)
    if require_success and not success:
        _raise_nothing_imported(f"any task of {task_root}", failures)
    return success


def ImportParams(
    model_name: str,
    task_root: str = TASK_ROOT,
    task_dirs: Sequence[str] | None = None,
    require_success: bool = True,
) -> bool:
    """Imports the modules that may hold a model: the one its name begins with, and its task's.

    For `ads.click.Model` these are `ads.click` itself, wherever it lies on `sys.path`, then
    `ROOT.ads.click` and `ROOT.ads.params.click`. The name's module is imported because the caller
    says so here: pass only names that you trust. `GetClass` and `GetParams` do not call this.

    Args:
      model_name: `<module>.<Class>`.
      task_root: package that holds the tasks.
      task_dirs: names of the tasks to look into; None: any.
      require_success: raise if none of the modules could be imported.

    Returns:
      Whether any was imported.

    Raises:
      ConfigError: a ValueError; `model_name` is not `<module>.<Class>`.
      LookupError: none was imported and `require_success` is set: `ModelImportError` with the
        real cause chained, or `UnknownModelError` naming the modules that were tried.

    Example:
      >>> ImportParams("no_such_task.Model", require_success=False)
      False
    """
    module, _, name = model_name.rpartition(".")
    if not name or not _is_dotted_name(module):
        raise ConfigError(f"invalid model name {model_name!r}: it has to be <module>.<Class>")
    task = module.partition(".")[0]
    candidates = [module]
    if task_dirs is None or task in task_dirs:
        candidates += _within(task_root, module)
    failures, success = [], False
    for candidate in candidates:
        failure = attempt(candidate)
        success |= failure is None
        if failure is not None:
            failures.append(failure)
            level = logging.INFO if failure.missing else logging.ERROR
            _logger.log(level, "Could not import %s", failure)
    if require_success and not success:
        _raise_nothing_imported(f"the module of model {model_name}", failures)
    return success


def import_for_key(key: str) -> None:
    """Imports the modules of the task roots and entry points that a key can belong to.

    Stops at the first that registers the key. No other module is imported, whatever the key says.

    Raises:
      ModelImportError: such a module is there and fails to import.
    """
    for module in _modules_for_key(key.rpartition(".")[0]):
        failure = attempt(module)
        if key in TABLE:
            return
        if failure is not None and not failure.missing:
            raise failure.error() from failure.cause


def _modules_for_key(path: str) -> Iterator[str]:
    if not _is_dotted_name(path):
        return
    for root in (TASK_ROOT, MIGRATED_ROOT):
        if path.startswith(f"{root}."):
            yield path
            return
    yield from _within(TASK_ROOT, path)
    for point in _entry_points.find():
        if path in (point.module, short_module(point.module)):
            yield point.module


def import_everything() -> None:
    """Imports all bundled tasks and all entry points; what fails is logged and left out."""
    ImportAllParams()
    for failure in _entry_points.load_all():
        _logger.error("Could not import %s", failure)


def _within(root: str, module: str) -> list[str]:
    """Returns where a task root may hold `task` or `task.path`: as named, and under `params`."""
    task, _, path = module.partition(".")
    return [f"{root}.{module}"] + ([f"{root}.{task}.params.{path}"] if path else [])


def _tasks_of(root: str, failures: list[ImportFailure]) -> Iterable[str]:
    failure = attempt(root)
    if failure is not None:
        failures.append(failure)
        return []
    paths = getattr(sys.modules[root], "__path__", [])
    return [info.name for info in pkgutil.iter_modules(paths) if not info.name.startswith("_")]


def _import_task(task: str) -> ImportFailure | None:
    failure = attempt(task)
    if failure is not None or not hasattr(sys.modules[task], "__path__"):
        return failure
    for module in (f"{task}.params.params", f"{task}.params"):
        failure = attempt(module)
        if failure is None or not failure.missing:
            return failure
    return None


def _raise_nothing_imported(what: str, failures: Sequence[ImportFailure]) -> None:
    """Raises for the first module that is there and fails, or else for all that are missing."""
    broken = [failure for failure in failures if not failure.missing]
    if broken:
        raise broken[0].error() from broken[0].cause
    tried = ", ".join(failure.module for failure in failures) or "nothing"
    first = failures[0] if failures else None
    error = type(first.error()) if first else LookupError
    raise error(f"could not import {what}; tried {tried}") from (first.cause if first else None)


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
