"""What processes agree on, of what each of them finds."""

from typing import Any

import pytest

from monolith_jax import distributed
from monolith_jax.ahead.agreement import common, refusal


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the other processes say; this one is process 0."""
    found: list[Any] = []
    monkeypatch.setattr(distributed, "from_all", lambda value, channel: [value, *found])
    return found


def test_files_that_all_have_are_kept_in_the_order_of_process_0(others: list[Any]) -> None:
    others += [[["c", "a", "b"], []], [["b", "c"], ["a is not taken: damaged"]]]
    files, told = common({"a": 1, "b": 2, "c": 3}, ["d is not taken: devices"])
    assert list(files.items()) == [("b", 2), ("c", 3)]
    assert told == ["d is not taken: devices", "process 2: a is not taken: damaged"]


def test_what_all_say_is_said_once(others: list[Any]) -> None:
    others.append([[], ["a is not taken: jax"]])
    assert common({}, ["a is not taken: jax"]) == ({}, ["a is not taken: jax"])


@pytest.mark.parametrize(
    ("found", "theirs", "why"),
    [
        ("a", "a", ""),
        ("", "", "0 says"),
        ("a", "", "process 1: 1 says; all do alike"),
        ("", "a", "process 0: 0 says; all do alike"),
        ("a", "b", "process 0: 0 says; process 1: 1 says; all do alike"),
    ],
)
def test_all_take_one_or_none(found: str, theirs: str, why: str, others: list[Any]) -> None:
    others.append([theirs, "1 says"])
    assert refusal(found, "0 says") == why
