"""metrics.jsonl: what is no row is named; what a kill cut short is left out."""

import json
from pathlib import Path

import pytest

from monolith_jax.errors import DataError
from monolith_jax.training.writers import MetricsFile, read_rows

ROW = {"step": 3, "split": "train", "loss": 0.5, "auc": float("nan")}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON: "),
        ("[" * 100_000, "line 2: not JSON: "),
        ("3", r"line 2: not a row of metrics, \{\.\.\.\}, but 3"),
        ("null", "but null"),
        ('["step"]', "but "),
        ('{"split": "train"}', "not a row of metrics: 'step' is missing"),
        ('{"step": "3", "split": "train"}', "'step' is '3'"),
        ('{"step": true, "split": "train"}', "'step' is True"),
        ('{"step": 3}', "'split' is missing"),
        ('{"step": 3, "split": "eval", "auc": [1]}', r"'auc' is \[1\]"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_line_that_is_no_row_is_named(
    tmp_path: Path, line: str, message: str, last: bool
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{line}\n" + ("" if last else json.dumps(ROW) + "\n"))
    with pytest.raises(DataError, match=rf"metrics\.jsonl, .*{message}"):
        read_rows(path)
    with pytest.raises(DataError, match="line 2"):
        MetricsFile(path, 3)


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = json.dumps(ROW)
    for end in range(len(whole)):
        path.write_text(f"{whole}\n{whole[:end]}")
        assert [row["step"] for row in read_rows(path)] == [3]
    assert read_rows(tmp_path / "none.jsonl") == []
