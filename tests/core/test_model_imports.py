"""`monolith_jax.core.model_imports` has the original's names and arguments."""

import inspect
import sys
from pathlib import Path

import pytest

from monolith_jax import registry
from monolith_jax.core import model_imports


def test_the_names_are_the_registrys() -> None:
    assert model_imports.__all__ == ["ImportAllParams", "ImportParams"]
    assert model_imports.ImportAllParams is registry.ImportAllParams
    assert model_imports.ImportParams is registry.ImportParams


def test_the_arguments_are_the_originals() -> None:
    assert list(inspect.signature(model_imports.ImportAllParams).parameters) == [
        "task_root",
        "task_dirs",
        "require_success",
    ]
    parameters = inspect.signature(model_imports.ImportParams).parameters
    assert list(parameters) == ["model_name", "task_root", "task_dirs", "require_success"]
    assert parameters["require_success"].default is True


def test_a_task_folder_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With any task folder the original raises NameError: name 'path' is not defined.
    folder = tmp_path / "core_imports_root" / "ads" / "params"
    folder.mkdir(parents=True)
    (folder / "params.py").write_text("from core_imports_root.ads.params import click\n")
    (folder / "click.py").write_text("imported = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert model_imports.ImportAllParams("core_imports_root", ("ads",), require_success=True)
    assert sys.modules["core_imports_root.ads.params.click"].imported
    assert model_imports.ImportParams(
        "ads.click.Model", task_root="core_imports_root", task_dirs=("ads",)
    )


def test_the_real_import_error_is_chained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The original logs it and raises a LookupError without a cause.
    (tmp_path / "core_imports_broken.py").write_text("import core_imports_absent\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(LookupError, match="No module named 'core_imports_absent'") as error:
        model_imports.ImportParams("core_imports_broken.Model")
    assert isinstance(error.value.__cause__, ImportError)
