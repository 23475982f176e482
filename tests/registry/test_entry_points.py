"""Models that other installed packages bring."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from monolith_jax import registry

Write = Callable[..., Path]
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Makes a distribution on sys.path with entry points, as pip would."""

    def install(**points: str) -> None:
        folder = tmp_path / "reg_plugin-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: reg-plugin\nVersion: 1.0\n")
        lines = [f"[{registry.ENTRY_POINTS}]", *(f"{k} = {v}" for k, v in points.items())]
        (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
        importlib.invalidate_caches()

    return install


def test_a_module_that_registers_its_models(write: Write, install: Install) -> None:
    write("reg_plugin.ads", models=("Click",))
    install(ads="reg_plugin.ads")
    assert registry.GetParams("reg_plugin.ads.Click") == "reg_plugin.ads.Click"
    assert registry.GetClass("Click") is registry.GetClass("reg_plugin.ads.Click")
    assert [model.key for model in registry.describe_models()] == ["reg_plugin.ads.Click"]
    assert "reg_plugin.ads.Click" in registry.GetAllRegisteredClasses()


def test_the_group_has_its_documented_name() -> None:
    assert registry.ENTRY_POINTS == "monolith_jax.models"


def test_a_class_that_nobody_registered(write: Write, install: Install) -> None:
    write(
        "reg_plugin",
        "class Click(SingleTaskModelParams):",
        "    def task(self): return 'click'",
    )
    install(click="reg_plugin:Click")
    for _ in range(2):
        assert registry.GetParams("reg_plugin.Click") == "click"
        registry.GetAllRegisteredClasses()


def test_a_class_that_registers_itself(write: Write, install: Install) -> None:
    write("reg_plugin", models=("Click",))
    install(click="reg_plugin:Click")
    assert [model.key for model in registry.describe_models()] == ["reg_plugin.Click"]


def test_an_exact_key_imports_no_other_entry_point(write: Write, install: Install) -> None:
    write("reg_plugin", models=("Click",))
    write("reg_other", models=("Click",))
    install(a="reg_other", b="reg_plugin")
    registry.GetClass("reg_plugin.Click")
    assert "reg_other" not in sys.modules


def test_a_broken_plugin_shows_its_cause_and_harms_no_other(
    write: Write, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    write("reg_broken", "import reg_absent", models=("Model",))
    write("reg_plugin", models=("Click",))
    install(a="reg_broken", b="reg_plugin")
    with pytest.raises(registry.ModelImportError, match="No module named 'reg_absent'") as error:
        registry.GetClass("reg_broken.Model")
    assert isinstance(error.value.__cause__, ModuleNotFoundError)
    assert [model.key for model in registry.describe_models()] == ["reg_plugin.Click"]
    assert "reg_broken (entry point a)" in caplog.text


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("reg_absent", "ModuleNotFoundError: No module named 'reg_absent'"),
        ("reg_plugin:Absent", "AttributeError: module 'reg_plugin' has no attribute 'Absent'"),
        ("reg_plugin:number", "TypeError: RegisterSingleTaskModel takes a subclass"),
        ("reg_plugin:helper", "TypeError: RegisterSingleTaskModel takes a subclass"),
        ("not a module", "ModuleNotFoundError"),
    ],
)
def test_an_entry_point_that_names_no_model_is_a_failure(
    write: Write, install: Install, caplog: pytest.LogCaptureFixture, value: str, cause: str
) -> None:
    write("reg_plugin", "number = 3", "def helper(): pass", models=("Click",))
    install(bad=value, good="reg_plugin")
    assert [model.key for model in registry.describe_models()] == ["reg_plugin.Click"]
    assert "(entry point bad)" in caplog.text
    assert cause in caplog.text
    with pytest.raises(registry.UnknownModelError, match=r"\(entry point bad\)"):
        registry.GetClass("zzzzzz")


def test_asking_for_a_model_of_a_missing_entry_point_names_it(install: Install) -> None:
    install(bad="reg_absent.models")
    with pytest.raises(registry.ModelImportError, match="No module named 'reg_absent'"):
        registry.GetClass("reg_absent.models.Click")
