"""A saved step in two processes, as on the hosts of a pod: loaded by both, the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("two_processes.py")


def test_two_processes_take_the_step_that_one_saved(
    tmp_path: Path, process_pair: Callable[..., Any]
) -> None:
    with process_pair(SCRIPT, tmp_path, devices=1) as pair:
        printed = pair.end(timeout=480)
    (path,) = tmp_path.iterdir()
    for said in printed:
        assert f"took {path}, loaded in" in said
        assert "same: True" in said
