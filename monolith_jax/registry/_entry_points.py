"""Models that other installed packages bring, through the entry-point group `monolith_jax.models`.

A package declares them in its `pyproject.toml`, as a module that registers models or as one class:

    [project.entry-points."monolith_jax.models"]
    ads = "my_company.ads.models"
    click = "my_company.click:ClickModel"
"""

import re
import sys
from importlib import metadata
from typing import NamedTuple

from monolith_jax.registry._attempt import FAILURES, ImportFailure, attempt
from monolith_jax.registry._keys import full_key
from monolith_jax.registry._table import TABLE, RegisterSingleTaskModel

GROUP = "monolith_jax.models"
_VALUE = re.compile(r"(?P<module>[\w.]+)\s*(?::\s*(?P<attribute>\w+))?\s*(\[.*\])?\s*")


class Point(NamedTuple):
    """An entry point: its name, its module, and the class within it ("": the module says)."""

    name: str
    module: str
    attribute: str


def find() -> list[Point]:
    """Returns the entry points of all installed packages, in the order of their names."""
    points = set()
    for point in metadata.entry_points(group=GROUP):
        match = _VALUE.fullmatch(point.value)
        # What is no module's name is kept whole: importing it fails, and the failure names it.
        module, attribute = (match["module"], match["attribute"]) if match else (point.value, "")
        points.add(Point(point.name, module, attribute or ""))
    return sorted(points)


def load_all() -> list[ImportFailure]:
    """Imports every entry point; returns those that failed."""
    return [failure for point in find() if (failure := load(point)) is not None]


def load(point: Point) -> ImportFailure | None:
    """Imports an entry point's module and registers its class if the module does not."""
    label = f"{point.module} (entry point {point.name})"
    failure = attempt(point.module)
    if failure is None and point.attribute:
        failure = _register(point)
    FAILURES.pop(label, None)
    if failure is None:
        return None
    # Unlike a guess from a key, an entry point promises its module: missing is a failure too.
    failure = ImportFailure(label, failure.cause, False)
    FAILURES.pop(point.module, None)
    FAILURES[label] = failure
    return failure


def _register(point: Point) -> ImportFailure | None:
    try:
        cls = getattr(sys.modules[point.module], point.attribute)
        is_known = isinstance(cls, type) and TABLE.classes().get(full_key(cls)) is cls
        if not is_known:
            RegisterSingleTaskModel(cls)
    except (AttributeError, TypeError, ValueError) as error:
        return ImportFailure(point.module, error, False)
    return None
