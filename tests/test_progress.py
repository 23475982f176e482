"""Progress: lines that stay, lines that renew themselves, and when they are left out."""

import io

import pytest

from monolith_jax import progress
from monolith_jax.progress import Eta, ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in its only item."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_eta_counts_from_where_this_process_began(now: list[float]) -> None:
    eta = Eta(start=0.5)
    assert eta.text(0.5) == "ETA -:--:--"
    now[0] = 60.0
    assert eta.text(0.75) == "ETA 0:01:00"
    assert eta.text(1.0) == "ETA 0:00:00"


def test_a_terminal_line_renews_itself_ten_times_a_second(now: list[float]) -> None:
    stream = Terminal()
    line = ProgressLine("rows", stream)
    for now[0] in (0.05, 0.1, 0.15, 0.2):
        line.show("a.csv", now[0], 1)
    assert stream.getvalue().count("\r") == 2
    line.show("a.csv", 1.0, 9)
    line.end()
    assert stream.getvalue().endswith("9 rows  ETA 0:00:00\x1b[K\n")


def test_elsewhere_lines_are_plain_and_rare(now: list[float]) -> None:
    stream = io.StringIO()
    line = ProgressLine("rows", stream)
    for now[0] in (1.0, 5.0, 11.0, 12.0):
        line.show("a.csv", now[0] / 20, int(now[0]))
    line.show("a.csv", 1.0, 20)
    line.end()
    text = stream.getvalue()
    assert text.splitlines() == [
        "a.csv  55%  11 rows  ETA 0:00:09",
        "a.csv  100%  20 rows  ETA 0:00:00",
    ]
    assert "\x1b" not in text
