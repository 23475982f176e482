"""What fails in one process fails in all."""

from typing import Any

import jax
import pytest

from monolith_jax import distributed
from monolith_jax.distributed import _together
from monolith_jax.errors import UserError


def test_any_error_of_one_process_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def exchange(value: Any) -> list[Any]:
        told.append(value)
        return [value, None]

    def fail() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(_together, "from_all", exchange)
    with pytest.raises(ZeroDivisionError):
        distributed.primary_first(fail)
    assert told == ["process 0: by zero"] * 2


def test_all_or_none_of_the_processes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: list[Any] = []
    channels: list[Any] = []

    def exchange(value: Any, channel: str, seconds: float | None) -> list[Any]:
        channels.append((channel, seconds))
        return [value, *theirs]

    def fail() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(_together, "from_all", exchange)
    theirs[:] = [None]
    assert distributed.all_or_none(lambda: 3, "upload", 9.0) == 3
    with pytest.raises(ZeroDivisionError):  # this one's own error as it is
        distributed.all_or_none(fail, "upload")
    theirs[:] = ["process 1: no space left"]
    with pytest.raises(UserError, match="process 1: no space left"):
        distributed.all_or_none(lambda: 3, "upload")
    assert channels == [("upload", 9.0), ("upload", None), ("upload", None)]
