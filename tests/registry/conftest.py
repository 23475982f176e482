"""A registry of one's own for each test, and modules that are written on the spot."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import monolith_jax.tasks
from monolith_jax.registry._attempt import FAILURES
from monolith_jax.registry._table import TABLE

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Empties the registry and the task root, and puts back afterwards what was there.

    `tmp_path` is on sys.path, and `tmp_path/tasks` is where `monolith_jax.tasks` looks.
    """
    entries, failures, modules = TABLE.snapshot(), dict(FAILURES), set(sys.modules)
    TABLE.restore({})
    FAILURES.clear()
    (tmp_path / "tasks").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(monolith_jax.tasks, "__path__", [str(tmp_path / "tasks")])
    # Two versions of a file within one second would share their bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    TABLE.restore(entries)
    FAILURES.clear()
    FAILURES.update(failures)
    for name in set(sys.modules) - modules:
        if name.startswith(("reg_", "monolith.", "monolith_jax.tasks.reg_")) or name == "monolith":
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a module by its dotted name, with the packages that it lies in.

    `write("reg_a.b", "import json", models=("M",))`: the line, then a registered class M whose
    task() returns "reg_a.b.M".
    """

    def write(name: str, *lines: str, models: tuple[str, ...] = ()) -> Path:
        below = name.removeprefix("monolith_jax.tasks.")
        folder = tmp_path if below == name else tmp_path / "tasks"
        *packages, last = below.split(".")
        for package in packages:
            folder = folder / package
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        is_package = (folder / last).is_dir()
        file = folder / last / "__init__.py" if is_package else folder / f"{last}.py"
        body = ["from monolith_jax.registry import *", *lines]
        for model in models:
            body += [
                "@RegisterSingleTaskModel",
                f"class {model}(SingleTaskModelParams):",
                f"    '''{model} of {name}.",
                "",
                "    More.'''",
                "    def task(self):",
                f"        return {f'{name}.{model}'!r}",
            ]
        file.write_text("\n".join(body) + "\n")
        importlib.invalidate_caches()
        return file

    return write
