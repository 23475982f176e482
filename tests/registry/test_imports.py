"""ImportAllParams, ImportParams, import_module: what they import, and what they raise."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from monolith_jax import registry
from monolith_jax.errors import ConfigError, UserError
from monolith_jax.registry import ImportAllParams, ImportParams
from monolith_jax.registry._table import TABLE

Write = Callable[..., Path]
BUNDLED = "monolith_jax.tasks"


def models() -> list[str]:
    return sorted(registry.full_key(entry.cls) for entry in TABLE.models())


def test_import_all_takes_the_params_module_of_a_given_task(write: Write) -> None:
    # The original fails here: it uses a name that it never defines.
    write("reg_root.ads.params.click", models=("Model",))
    write("reg_root.ads.params.params", "import reg_root.ads.params.click")
    write("reg_root.feed.params.params", models=("Other",))
    assert ImportAllParams("reg_root", ("ads",), require_success=True)
    assert models() == ["reg_root.ads.params.click.Model"]


def test_import_all_takes_every_task_of_the_root_by_default(write: Write) -> None:
    write("reg_root.ads.params.params", models=("A",))
    write("reg_root.feed.params", models=("B",))
    write("reg_root.news", models=("C",))
    write("reg_root.plain.other", models=("NotLookedInto",))
    write("reg_root._private", models=("D",))
    assert ImportAllParams(task_root="reg_root")
    assert models() == ["reg_root.ads.params.params.A", "reg_root.feed.params.B", "reg_root.news.C"]


def test_import_all_without_arguments_takes_the_bundled_tasks(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads", models=("A",))
    assert ImportAllParams()
    assert models() == [f"{BUNDLED}.reg_ads.A"]


def test_import_all_of_no_tasks_imports_nothing(write: Write) -> None:
    write("reg_root.ads", models=("A",))
    assert not ImportAllParams("reg_root", ())
    assert "reg_root" not in sys.modules
    with pytest.raises(LookupError, match="could not import any task of reg_root; tried nothing"):
        ImportAllParams("reg_root", (), require_success=True)


def test_import_all_goes_on_after_a_failure_and_logs_its_cause(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("reg_root.a_broken", "import reg_absent")
    write("reg_root.b_broken.params.params", "1 / 0")
    write("reg_root.fine", models=("Model",))
    assert ImportAllParams("reg_root", require_success=True)
    assert models() == ["reg_root.fine.Model"]
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 2
    assert "No module named 'reg_absent'" in errors[0]
    assert "ZeroDivisionError" in errors[1]


def test_import_all_chains_the_real_import_error(write: Write) -> None:
    write("reg_root.ads.params.params", "import reg_absent")
    assert not ImportAllParams("reg_root", ("missing", "ads"))
    with pytest.raises(
        LookupError, match=r"params\.params .*No module named 'reg_absent'"
    ) as error:
        ImportAllParams("reg_root", ("missing", "ads"), require_success=True)
    assert isinstance(error.value, UserError)
    assert isinstance(error.value.__cause__, ModuleNotFoundError)
    assert error.value.__cause__.name == "reg_absent"


def test_import_all_of_missing_tasks_says_what_was_tried(write: Write) -> None:
    write("reg_root.ads")
    message = r"any task of reg_root; tried reg_root\.x, reg_root\.y$"
    with pytest.raises(LookupError, match=message) as error:
        ImportAllParams("reg_root", ("x", "y"), require_success=True)
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


def test_import_all_of_a_missing_root(caplog: pytest.LogCaptureFixture) -> None:
    assert not ImportAllParams("reg_absent.tasks")
    assert "no module reg_absent.tasks" in caplog.text
    with pytest.raises(LookupError, match=r"any task of reg_absent\.tasks"):
        ImportAllParams("reg_absent.tasks", require_success=True)


def test_import_params_imports_the_names_own_module(write: Write) -> None:
    write("reg_mine.ads", models=("Click",))
    assert ImportParams("reg_mine.ads.Click")
    assert models() == ["reg_mine.ads.Click"]


@pytest.mark.parametrize("module", ["reg_ads.click", "reg_ads.params.click"])
@pytest.mark.parametrize("task_dirs", [None, ("other", "reg_ads")])
def test_import_params_looks_into_the_task(
    write: Write, module: str, task_dirs: tuple[str, ...] | None
) -> None:
    write(f"reg_root.{module}", models=("Model",))
    assert ImportParams("reg_ads.click.Model", "reg_root", task_dirs)
    assert models() == [f"reg_root.{module}.Model"]


def test_import_params_leaves_other_tasks_alone(write: Write) -> None:
    write("reg_root.reg_ads.params.click", models=("Model",))
    assert not ImportParams("reg_ads.click.Model", "reg_root", ("ads",), require_success=False)
    assert models() == []


def test_import_params_imports_nothing_but_candidates(write: Write) -> None:
    write("reg_root.reg_ads.params.click", models=("Model",))
    write("reg_root.reg_ads.params.other", models=("Model",))
    ImportParams("reg_ads.click.Model", "reg_root")
    assert models() == ["reg_root.reg_ads.params.click.Model"]


def test_import_params_chains_the_real_import_error(write: Write) -> None:
    # The original logs this and raises a LookupError that knows nothing of it.
    file = write("reg_mine", "import reg_absent")
    with pytest.raises(LookupError) as error:
        ImportParams("reg_mine.Model")
    assert f"reg_mine ({file}:2): ModuleNotFoundError: No module named 'reg_absent'" in str(
        error.value
    )
    assert isinstance(error.value.__cause__, ModuleNotFoundError)
    assert not ImportParams("reg_mine.Model", require_success=False)


def test_import_params_of_a_missing_module_says_what_was_tried() -> None:
    with pytest.raises(registry.UnknownModelError) as error:
        ImportParams("reg_ads.click.Model")
    tried = f"reg_ads.click, {BUNDLED}.reg_ads.click, {BUNDLED}.reg_ads.params.click"
    assert str(error.value).endswith(f"tried {tried}")
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("name", ["Model", "", ".Model", "a..Model", "reg_a.", "a b.Model"])
def test_import_params_of_no_model_name_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match="invalid model name") as error:
        ImportParams(name)
    assert isinstance(error.value, ConfigError)


def test_import_module_returns_it(write: Write) -> None:
    write("reg_mine.ads", models=("Click",))
    assert registry.import_module("reg_mine.ads").__name__ == "reg_mine.ads"


@pytest.mark.parametrize("name", ["reg_absent", "reg_absent.sub", "json.absent"])
def test_import_module_that_is_not_there(name: str) -> None:
    with pytest.raises(registry.UnknownModelError, match=f"no module {name} .*PYTHONPATH") as error:
        registry.import_module(name)
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("name", ["", "a/b.py", "models.py ", "..", "-m", "a:b"])
def test_import_module_of_no_module_name(name: str) -> None:
    with pytest.raises(ConfigError, match="is no dotted module name"):
        registry.import_module(name)


def test_ctrl_c_is_no_failure_to_import(write: Write) -> None:
    write("reg_slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry.import_module("reg_slow")
