"""From a name to a class: exact keys, suffixes, near misses, broken modules, listing."""

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from monolith_jax import registry
from monolith_jax.errors import UserError
from monolith_jax.registry._table import TABLE

Write = Callable[..., Path]
BUNDLED = "monolith_jax.tasks"


def test_a_bundled_model_is_imported_by_either_key(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads", models=("Click",))
    cls = registry.GetClass("reg_ads.Click")
    assert cls.__module__ == f"{BUNDLED}.reg_ads"
    assert registry.GetClass(f"{BUNDLED}.reg_ads.Click") is cls


def test_a_bundled_model_in_monoliths_layout(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads.params.click", models=("Model",))
    assert registry.GetParams("reg_ads.click.Model") == f"{BUNDLED}.reg_ads.params.click.Model"


def test_a_model_in_monoliths_own_tree(write: Write) -> None:
    write("monolith.tasks.reg_ads.params.click", models=("Model",))
    name = "monolith.tasks.reg_ads.params.click.Model"
    assert registry.GetParams(name) == name
    assert registry.GetParams("reg_ads.click.Model") == name


def test_only_the_module_of_an_exact_key_is_imported(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads", models=("Click",))
    write(f"{BUNDLED}.reg_other", models=("Click",))
    registry.GetClass("reg_ads.Click")
    assert f"{BUNDLED}.reg_other" not in sys.modules


@pytest.mark.parametrize("suffix", ["Click", "reg_ads.Click", "tasks.reg_ads.Click"])
def test_a_unique_suffix_is_enough(write: Write, suffix: str) -> None:
    write(f"{BUNDLED}.reg_ads", models=("Click", "XClick"))
    assert registry.GetClass(suffix).__name__ == "Click"
    assert registry.GetParams(suffix) == f"{BUNDLED}.reg_ads.Click"


def test_a_suffix_of_two_models_is_an_error_that_lists_them(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads", models=("Click",))
    write(f"{BUNDLED}.reg_feed", models=("Click",))
    with pytest.raises(registry.UnknownModelError) as error:
        registry.GetClass("Click")
    message = "'Click' is ambiguous, write one of: reg_ads.Click, reg_feed.Click"
    assert str(error.value) == message


def test_whether_a_suffix_is_ambiguous_does_not_depend_on_what_is_imported(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads", models=("Click",))
    write(f"{BUNDLED}.reg_feed", models=("Click",))
    registry.GetClass("reg_ads.Click")
    with pytest.raises(LookupError, match="ambiguous"):
        registry.GetClass("Click")


def test_a_key_wins_over_a_suffix(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads", models=("Click",))
    write("reg_company.reg_ads", models=("Click",))
    registry.import_module("reg_company.reg_ads")
    assert registry.GetClass("reg_ads.Click").__module__ == f"{BUNDLED}.reg_ads"


def test_both_ways_in_are_one_model_and_not_ambiguous(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads.params.click", models=("Model",))
    write(f"{BUNDLED}.reg_ads.params.params", f"import {BUNDLED}.reg_ads.params.click")
    assert registry.GetClass("click.Model").__name__ == "Model"


@pytest.mark.parametrize(
    "name", ["reg_ads.Clck", "reg_asd.Click", "Clicks", f"{BUNDLED}.reg_ads.click", "REG_ADS.CLICK"]
)
def test_near_misses_are_in_the_message(write: Write, name: str) -> None:
    write(f"{BUNDLED}.reg_ads", models=("Click", "Unlike"))
    with pytest.raises(LookupError, match=r"did you mean reg_ads\.Click") as error:
        registry.GetClass(name)
    assert isinstance(error.value, UserError)
    assert name in str(error.value)


def test_known_models_are_logged(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write(f"{BUNDLED}.reg_ads", models=("B", "A"))
    with caplog.at_level(logging.INFO), pytest.raises(LookupError):
        registry.GetClass("zzzzzzzz")
    known = [r.getMessage() for r in caplog.records if "Known" in r.getMessage()]
    keys = [f"{BUNDLED}.reg_ads.A", f"{BUNDLED}.reg_ads.B", "reg_ads.A", "reg_ads.B"]
    assert known == [f"Known model: {key}" for key in keys]


def test_a_far_miss_lists_all(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads", models=("B", "A"))
    with pytest.raises(LookupError, match=r"valid choices: reg_ads\.A, reg_ads\.B \(.*--module"):
        registry.GetClass("zzzzzzzz")


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", ".Click", "Click.", "a b.C", "a/b.C", "é"])
def test_odd_names_are_unknown_models(name: str) -> None:
    with pytest.raises(registry.UnknownModelError):
        registry.GetClass(name)


@pytest.mark.parametrize(
    "name", ["reg_evil.Model", "reg_evil.sub.Model", "reg_evil", ".reg_evil.M"]
)
def test_a_models_name_never_imports_a_module_of_the_path(
    write: Write, tmp_path: Path, name: str
) -> None:
    write("reg_evil.sub", "open('harm', 'w')", models=("Model",))
    with pytest.raises(registry.UnknownModelError, match="--module MODULE"):
        registry.GetClass(name)
    registry.GetAllRegisteredClasses()
    registry.describe_models()
    assert "reg_evil" not in sys.modules
    assert not Path("harm").exists()


def test_a_module_that_the_user_names_is_imported(write: Write) -> None:
    write("reg_mine.ads", models=("Click",))
    module = registry.import_module("reg_mine.ads")
    assert registry.GetClass("reg_mine.ads.Click") is module.Click
    assert registry.GetClass("Click") is module.Click


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("import reg_absent", "ModuleNotFoundError: No module named 'reg_absent'"),
        ("from json import nothing", "ImportError: cannot import name 'nothing' from 'json'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    ],
)
def test_a_broken_module_shows_its_real_cause(write: Write, line: str, cause: str) -> None:
    file = write(f"{BUNDLED}.reg_broken", line, models=("Model",))
    write(f"{BUNDLED}.reg_fine", models=("Model",))
    with pytest.raises(registry.ModelImportError) as error:
        registry.GetClass("reg_broken.Model")
    assert isinstance(error.value, UserError)
    assert isinstance(error.value, LookupError)
    expected = f"a model's module fails to import: {BUNDLED}.reg_broken ({file}:2): {cause}"
    assert str(error.value).startswith(expected)
    assert type(error.value.__cause__).__name__ == cause.partition(":")[0]
    assert registry.GetParams("reg_fine.Model") == f"{BUNDLED}.reg_fine.Model"


def test_a_syntax_error_shows_file_and_line(write: Write) -> None:
    write(f"{BUNDLED}.reg_broken", "def f(:")
    with pytest.raises(registry.ModelImportError, match=r"SyntaxError: .*reg_broken\.py, line 2"):
        registry.GetClass("reg_broken.Model")


def test_a_broken_module_leaves_the_others_listed(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write(f"{BUNDLED}.reg_broken", "1 / 0")
    write(f"{BUNDLED}.reg_fine", models=("Model",))
    assert [model.short_key for model in registry.describe_models()] == ["reg_fine.Model"]
    assert set(registry.GetAllRegisteredClasses()) == {
        "reg_fine.Model",
        f"{BUNDLED}.reg_fine.Model",
    }
    assert "Could not import monolith_jax.tasks.reg_broken" in caplog.text
    assert "ZeroDivisionError: division by zero" in caplog.text
    assert registry.GetClass("Model").__module__ == f"{BUNDLED}.reg_fine"


def test_an_unknown_name_mentions_the_broken_modules(write: Write) -> None:
    write(f"{BUNDLED}.reg_broken", "1 / 0")
    with pytest.raises(
        registry.UnknownModelError,
        match=r"fail to import: .*reg_broken \(.*\): ZeroDivisionError: division by zero",
    ):
        registry.GetClass("Model")


def test_a_module_that_fails_half_way_leaves_no_models(write: Write) -> None:
    write(f"{BUNDLED}.reg_parts.whole", models=("Whole",))
    file = write(f"{BUNDLED}.reg_half", models=("Model",))
    text = file.read_text()
    file.write_text(f"import {BUNDLED}.reg_parts.whole\n{text}1 / 0\n")
    with pytest.raises(registry.ModelImportError, match="division by zero"):
        registry.GetClass("reg_half.Model")
    # Once more: the cause is still the real one, and no "duplicate model".
    with pytest.raises(registry.ModelImportError, match="division by zero"):
        registry.GetClass("reg_half.Model")
    assert [entry.cls.__name__ for entry in TABLE.models()] == ["Whole"]
    file.write_text(text)
    importlib.invalidate_caches()
    assert registry.GetParams("reg_half.Model") == f"{BUNDLED}.reg_half.Model"


def test_a_package_that_fails_is_the_cause_for_the_modules_in_it(write: Write) -> None:
    write(f"{BUNDLED}.reg_pack.ads", models=("Click",))
    write(f"{BUNDLED}.reg_pack", "1 / 0")
    with pytest.raises(registry.ModelImportError, match="ZeroDivisionError"):
        registry.GetClass("reg_pack.ads.Click")


def test_no_models_at_all_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert registry.GetAllRegisteredClasses() == {}
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "No classes registered.")
    ]


def test_the_dict_of_all_classes_is_a_copy(write: Write) -> None:
    write(f"{BUNDLED}.reg_ads", models=("Click",))
    registry.GetAllRegisteredClasses().clear()
    assert len(registry.GetAllRegisteredClasses()) == 2


def test_get_params_makes_an_instance_and_calls_task(write: Write) -> None:
    write(
        f"{BUNDLED}.reg_ads",
        "@RegisterSingleTaskModel",
        "class Model(SingleTaskModelParams):",
        "    def __init__(self): self.made = True",
        "    def task(self): return self",
    )
    assert registry.GetParams("reg_ads.Model").made
    assert registry.GetParams("reg_ads.Model") is not registry.GetParams("reg_ads.Model")


def test_a_model_without_a_task_says_so(write: Write) -> None:
    write(
        f"{BUNDLED}.reg_ads",
        "@RegisterSingleTaskModel",
        "class Model(SingleTaskModelParams): pass",
    )
    with pytest.raises(NotImplementedError, match=r"Model does not define task\(\)"):
        registry.GetParams("reg_ads.Model")


def test_models_are_described_with_file_and_line(write: Write) -> None:
    file = write(f"{BUNDLED}.reg_ads", "", "# A line.", models=("B", "A"))
    assert registry.describe_models() == [
        registry.ModelInfo(
            f"{BUNDLED}.reg_ads.A", "reg_ads.A", f"A of {BUNDLED}.reg_ads.", str(file), 11
        ),
        registry.ModelInfo(
            f"{BUNDLED}.reg_ads.B", "reg_ads.B", f"B of {BUNDLED}.reg_ads.", str(file), 4
        ),
    ]


def test_a_model_without_source_is_described_by_the_place_of_its_registration() -> None:
    cls = type("Made", (registry.SingleTaskModelParams,), {"__module__": "reg_nowhere"})
    registry.RegisterSingleTaskModel(cls)
    [info] = registry.describe_models()
    assert (info.key, info.short_key, info.doc_line) == ("reg_nowhere.Made",) * 2 + ("",)
    assert info.file == __file__
    assert info.line == cls_line()


def cls_line() -> int:
    """Returns the line above that registers `Made`."""
    lines = Path(__file__).read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.endswith("TaskModel(cls)"))


def test_modules_with_an_underscore_are_not_searched(write: Write) -> None:
    write(f"{BUNDLED}._reg_private", models=("Model",))
    assert registry.describe_models() == []
