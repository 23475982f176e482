"""Model dirs: whose they are, and what an older version of the package has stored in them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from monolith_jax.errors import CheckpointError, UserError
from monolith_jax.task import TaskConfig
from monolith_jax.training import RunDir


def test_a_field_that_was_not_there_yet_counts_with_its_default(
    task: TaskConfig, changed: Callable[..., TaskConfig], tmp_path: Path
) -> None:
    RunDir(str(tmp_path), "model", task).open()
    file = tmp_path / "config.json"
    document = json.loads(file.read_text())
    del document["config"]["embedding_l2"], document["config"]["input"]["skip_damaged"]
    file.write_text(json.dumps(document))
    RunDir(str(tmp_path), "model", task).check()
    other = changed(task, embedding_l2=0.5)
    with pytest.raises(CheckpointError, match=r"embedding_l2: 0\.0 -> 0\.5"):
        RunDir(str(tmp_path), "model", other).check()


def test_a_field_that_is_gone_is_a_difference(task: TaskConfig, tmp_path: Path) -> None:
    RunDir(str(tmp_path), "model", task).open()
    file = tmp_path / "config.json"
    document = json.loads(file.read_text())
    document["config"]["gone"] = 3
    file.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"gone: 3 -> \(absent\)"):
        RunDir(str(tmp_path), "model", task).check()


def test_another_scheme_names_the_valid_ones(task: TaskConfig) -> None:
    with pytest.raises(UserError, match="s3:// is not supported; valid are gs:// and local"):
        RunDir("s3://bucket/run", "model", task)
