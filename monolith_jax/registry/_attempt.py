"""Importing a module that may fail, and keeping the real cause."""

import importlib
import logging
import traceback
from dataclasses import dataclass
from pathlib import Path

from monolith_jax.registry._errors import ModelImportError, UnknownModelError
from monolith_jax.registry._table import TABLE

_logger = logging.getLogger(__name__)

# The failures so far of modules that are there, and of entry points, by their text before the
# cause; a later success removes its entry.
FAILURES: dict[str, "ImportFailure"] = {}


@dataclass(frozen=True)
class ImportFailure:
    """A module that could not be imported.

    Attributes:
      module: its dotted name, and in brackets the entry point that names it.
      cause: what importing it raised.
      missing: there is no such module; otherwise it is there and fails.
    """

    module: str
    cause: BaseException
    missing: bool

    def __str__(self) -> str:
        if self.missing:
            return f"no module {self.module}"
        text = " ".join(str(self.cause).split())
        return f"{self.module}{self._place()}: {type(self.cause).__name__}: {text}"

    def _place(self) -> str:
        """Returns file and line of the innermost frame beyond the import system and this room."""
        here = str(Path(__file__).parent)
        frames = [
            frame
            for frame in traceback.extract_tb(self.cause.__traceback__)
            if "importlib" not in frame.filename and not frame.filename.startswith(here)
        ]
        return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""

    def error(self) -> ModelImportError | UnknownModelError:
        """Returns the error to raise `from self.cause`."""
        if self.missing:
            return UnknownModelError(str(self))
        return ModelImportError(f"a model's module fails to import: {self}")


def attempt(module: str) -> ImportFailure | None:
    """Imports `module`; returns why it could not be, or None.

    Everything that a module's code can raise counts as a failure to import, `SystemExit`
    included, so that one broken module leaves the others usable; Ctrl-C does not.
    """
    before = TABLE.snapshot()
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        TABLE.forget_unloaded(before)
        FAILURES.pop(module, None)
        failure = ImportFailure(module, error, _is_missing(module, error))
        if not failure.missing:
            _logger.debug("Could not import %s", failure)
            FAILURES[module] = failure
        return failure
    FAILURES.pop(module, None)
    _logger.debug("Imported %s", module)
    return None


def _is_missing(module: str, error: BaseException) -> bool:
    """Whether `module` itself, or a package that it would lie in, is not there."""
    return (
        isinstance(error, ModuleNotFoundError)
        and error.name is not None
        and f"{module}.".startswith(f"{error.name}.")
    )
