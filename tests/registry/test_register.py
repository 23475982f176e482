"""Registering: keys, duplicates, re-execution, logs."""

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from monolith_jax import registry
from monolith_jax.errors import UserError
from monolith_jax.registry import RegisterSingleTaskModel, SingleTaskModelParams
from monolith_jax.registry._table import TABLE

Write = Callable[..., Path]
CELL = """
@RegisterSingleTaskModel
class Model(SingleTaskModelParams):
    version = {version}
"""


def make(module: str, name: str = "Model") -> type[SingleTaskModelParams]:
    return type(name, (SingleTaskModelParams,), {"__module__": module})


def notebook(name: str) -> ModuleType:
    """Returns a module that cells can be executed in, as a notebook's `__main__`."""
    module = ModuleType(name)
    run(module, "from monolith_jax.registry import *")
    return module


def run(module: ModuleType, cell: str) -> None:
    """Executes a cell, compiled anew as notebooks do."""
    exec(compile(cell, "<cell>", "exec"), module.__dict__)  # noqa: S102 - this file's own text


def test_returns_the_class_itself() -> None:
    cls = make("reg_a")
    assert RegisterSingleTaskModel(cls) is cls


@pytest.mark.parametrize(
    "bad", [None, 3, "Model", int, object(), SingleTaskModelParams, SingleTaskModelParams()]
)
def test_anything_but_a_subclass_is_a_type_error(bad: object) -> None:
    with pytest.raises(TypeError, match="takes a subclass of SingleTaskModelParams"):
        RegisterSingleTaskModel(bad)  # type: ignore[type-var]
    assert TABLE.classes() == {}


@pytest.mark.parametrize(
    ("module", "short"),
    [
        ("monolith.tasks.ads.params.click", "ads.click.Model"),
        ("monolith.tasks.ads.params.params", "ads.params.Model"),
        ("monolith.tasks.ads.params", "ads.params.Model"),
        ("monolith.tasks.ads", "ads.Model"),
        ("monolith_jax.tasks.ads", "ads.Model"),
        ("monolith_jax.tasks.ads.params.click", "ads.click.Model"),
        ("company.params.click", "company.click.Model"),
        ("company.click", "company.click.Model"),
        # str.replace, as in the original: every occurrence, and no regard for what precedes it.
        ("my_monolith.tasks.hyperparams.click", "my_hyperclick.Model"),
        ("__main__", "__main__.Model"),
    ],
)
def test_both_keys(module: str, short: str) -> None:
    cls = RegisterSingleTaskModel(make(module))
    assert TABLE.classes() == {f"{module}.Model": cls, short: cls}
    assert registry.full_key(cls) == f"{module}.Model"
    assert registry.short_key(cls) == short


def test_the_same_class_twice_is_a_duplicate() -> None:
    cls = RegisterSingleTaskModel(make("reg_a"))
    with pytest.raises(ValueError, match=r"duplicate model registered for key reg_a\.Model"):
        RegisterSingleTaskModel(cls)


def test_two_classes_of_one_name_in_one_function_are_duplicates() -> None:
    RegisterSingleTaskModel(make("reg_a"))
    with pytest.raises(registry.DuplicateModelError) as error:
        RegisterSingleTaskModel(make("reg_a"))
    assert isinstance(error.value, UserError)
    assert str(error.value).count(f"{__file__}:") == 2


def test_two_modules_with_one_short_key_are_duplicates_and_nothing_is_added() -> None:
    first = RegisterSingleTaskModel(make("monolith.tasks.ads"))
    with pytest.raises(ValueError, match=r"key ads\.Model: monolith_jax\.tasks\.ads\.Model at"):
        RegisterSingleTaskModel(make("monolith_jax.tasks.ads"))
    assert TABLE.classes() == {"ads.Model": first, "monolith.tasks.ads.Model": first}


def test_two_classes_of_one_name_in_one_module_are_duplicates(write: Write) -> None:
    file = write("reg_twice", models=("Model", "Model"))
    with pytest.raises(registry.ModelImportError) as error:
        registry.import_module("reg_twice")
    assert f"{file}:2" in str(error.value)
    assert f"{file}:9" in str(error.value)
    assert TABLE.classes() == {}


def test_a_loop_over_one_class_statement_is_a_duplicate(write: Write) -> None:
    write(
        "reg_loop",
        "for i in range(2):",
        "    @RegisterSingleTaskModel",
        "    class Model(SingleTaskModelParams): pass",
    )
    with pytest.raises(ValueError, match="duplicate model"):
        importlib.import_module("reg_loop")


def test_reload_replaces_the_classes(write: Write) -> None:
    write("reg_reload", "version = 1", models=("Model", "Other"))
    module = importlib.import_module("reg_reload")
    old = registry.GetClass("reg_reload.Model")
    write("reg_reload", "# shifted", "version = 2", models=("Other", "Model"))
    importlib.reload(module)
    assert registry.GetClass("reg_reload.Model") is module.Model
    assert module.Model is not old
    assert set(TABLE.classes()) == {"reg_reload.Model", "reg_reload.Other"}


def test_importing_a_module_again_replaces_the_classes(write: Write) -> None:
    write("reg_again", models=("Model",))
    first = importlib.import_module("reg_again").Model
    del sys.modules["reg_again"]
    second = importlib.import_module("reg_again").Model
    assert registry.GetClass("reg_again.Model") is second is not first


def test_a_cell_that_is_executed_again_replaces_the_class() -> None:
    module = notebook("reg_notebook")
    for version in (1, 2, 2):
        run(module, CELL.format(version=version))
        found = registry.GetClass("reg_notebook.Model")
        assert found is module.Model
        assert found.version == version


def test_two_classes_of_one_name_in_one_cell_are_duplicates() -> None:
    module = notebook("reg_notebook")
    cell = CELL.format(version=1) + CELL.format(version=2)
    with pytest.raises(ValueError, match="duplicate model"):
        run(module, cell)


def test_a_cell_that_registers_from_a_function_can_be_executed_again() -> None:
    module = notebook("reg_notebook")
    run(
        module,
        "def make(size):\n"
        "    @RegisterSingleTaskModel\n"
        "    class Model(SingleTaskModelParams):\n"
        "        width = size\n",
    )
    for width in (8, 16):
        run(module, f"make({width})")
        assert registry.GetClass("reg_notebook.Model").width == width
    with pytest.raises(ValueError, match="duplicate model"):
        run(module, "make(1); make(2)")


def test_a_cell_that_registers_a_class_of_another_module_can_be_executed_again() -> None:
    module = notebook("reg_notebook")
    module.cls = make("reg_library")
    for _ in range(2):
        run(module, "RegisterSingleTaskModel(cls)")
    assert registry.GetClass("reg_library.Model") is module.cls


def test_a_decorator_of_another_module_may_lie_between(write: Write) -> None:
    write("reg_decorator", "def ours(cls):", "    return RegisterSingleTaskModel(cls)")
    body = ("from reg_decorator import ours", "@ours", "class Model(SingleTaskModelParams): pass")
    file = write("reg_decorated", *body)
    module = importlib.import_module("reg_decorated")
    assert TABLE.snapshot()["reg_decorated.Model"].site.file == str(file)
    importlib.reload(module)
    assert registry.GetClass("reg_decorated.Model") is module.Model


def test_each_module_is_logged_once(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write("reg_logged", models=("A", "B"))
    with caplog.at_level(logging.INFO):
        module = importlib.import_module("reg_logged")
        importlib.reload(module)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["Registering models from module: reg_logged"]


def test_each_key_is_logged_for_who_wants_to_know(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        RegisterSingleTaskModel(make("monolith.tasks.reg_ads"))
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.DEBUG]
    assert lines == [
        "Registering model monolith.tasks.reg_ads.Model",
        "Registering model reg_ads.Model",
    ]
