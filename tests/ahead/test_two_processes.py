"""A saved step in two processes, as on the hosts of a pod: taken by both, or by neither."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def printed(
    tmp_path_factory: pytest.TempPathFactory, process_pair: Callable[..., Any]
) -> tuple[Path, list[list[str]]]:
    """The saved step, and the lines that each process printed."""
    folder = tmp_path_factory.mktemp("steps")
    with process_pair(SCRIPT, folder, devices=1) as pair:
        said = pair.end(timeout=480)
    (path,) = folder.iterdir()
    return path, [text.splitlines() for text in said]


def of_case(lines: list[str], case: str) -> list[str]:
    return [line.removeprefix(f"{case}: ") for line in lines if line.startswith(f"{case}: ")]


def test_both_take_the_step_that_one_saved(printed: Any) -> None:
    path, everyones = printed
    for lines in everyones:
        said, *found = of_case(lines, "alike")
        assert re.fullmatch(rf"took {path}, loaded in [0-9.]+ s instead of compiling", said)
        assert found == ["same: True", "taken: True"]


def test_what_one_is_refused_none_takes(printed: Any) -> None:
    path, everyones = printed
    for lines in everyones:
        assert of_case(lines, "refused") == [
            f"process 1: {path} is not taken: another runtime; all do alike; compiling",
            "same: True",
            "taken: False",
        ]


def test_what_one_does_not_see_none_takes(printed: Any) -> None:
    _, everyones = printed
    for number, lines in enumerate(everyones):
        missing, *said = of_case(lines, "elsewhere")
        assert re.fullmatch(("process 1: ", "")[number] + r"\S+ has no step of small", missing)
        assert said == ["the step is compiled here", "same: True", "taken: False"]


def test_a_folder_that_one_has_not_ends_both(printed: Any) -> None:
    _, everyones = printed
    for number, lines in enumerate(everyones):
        (said,) = of_case(lines, "nowhere")
        assert re.fullmatch(("process 1: ", "")[number] + r"\S+/none: no such file or .*", said)
