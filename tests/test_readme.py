"""What the README shows is what there is."""

import re
from pathlib import Path

import pytest

from monolith_jax import cli, registry
from monolith_jax.task import TaskConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_first_screen_has_the_two_commands_that_ci_runs() -> None:
    make, test = blocks("sh")[:2]
    assert "monolith-jax train movielens.DeepFM --model-dir" in make
    assert test.strip().endswith(".venv/bin/python -m pytest")
    assert make.count("\n") == test.count("\n") == 1


def test_the_model_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = blocks("python")
    (tmp_path / "my_models.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    registry.import_module("my_models")
    task = registry.GetParams("my_models.Clicks")
    assert isinstance(task, TaskConfig)
    assert {column.name for column in task.schema()} == {
        "click",
        "hour",
        "user",
        "recent_ads",
        "ad",
    }
    assert task.instantiate().hidden == (64, 32)


def test_every_file_it_names_exists() -> None:
    for target in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`(examples/\S+\.py)`", README):
        assert (ROOT / name).exists(), name


def test_every_benchmark_it_names_exists_and_the_other_way_round() -> None:
    table = README.split("## Benchmarks")[1].split("##")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    there = {p.stem for p in (ROOT / "benchmarks").glob("[a-z]*.py")}
    assert named == there


def test_the_fields_it_changes_exist() -> None:
    help_line = next(line for line in README.splitlines() if "--model.hidden" in line)
    fields = re.findall(r"--(\w+\.\w+)", help_line)
    task = registry.GetParams("movielens.DeepFM")
    for field in fields:
        group, name = field.split(".")
        assert hasattr(getattr(task, group), name), field
    assert cli.main(["models"]) == 0
