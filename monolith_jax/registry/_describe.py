"""The registered models with what a reader of a list wants to know of them."""

import inspect
from typing import NamedTuple

from monolith_jax.registry._imports import import_everything
from monolith_jax.registry._keys import full_key, short_key
from monolith_jax.registry._table import TABLE, Entry


class ModelInfo(NamedTuple):
    """One registered model.

    Attributes:
      key: `<module>.<Class>`.
      short_key: the key that users type.
      doc_line: first line of the class's docstring; empty without one.
      file: the source file.
      line: the line where the class begins, its decorators included; from 1.
    """

    key: str
    short_key: str
    doc_line: str
    file: str
    line: int


def describe_models() -> list[ModelInfo]:
    """Returns all models by short key: the bundled ones, the entry points', those imported.

    A module that fails to import is logged as an error and left out.

    Example:
      >>> all(model.key.endswith(model.short_key.rpartition(".")[2]) for model in describe_models())
      True
    """
    import_everything()
    return [_describe(entry) for entry in TABLE.models()]


def _describe(entry: Entry) -> ModelInfo:
    cls = entry.cls
    lines = (cls.__doc__ or "").strip().splitlines()
    try:
        file, line = inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        # Typed in, or made by code: the place of its registration is all there is.
        file, line = None, entry.site.line
    return ModelInfo(
        full_key(cls),
        short_key(cls),
        lines[0].strip() if lines else "",
        file or entry.site.file,
        line,
    )
