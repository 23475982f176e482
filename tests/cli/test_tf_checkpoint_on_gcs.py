"""`import-tf`, `export-tf`, `inspect` and `train` on the command line, all of it in a bucket."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monolith_jax import cli, storage
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.checkpoint.tf import open_bundle, read_state_file, write_bundle
from monolith_jax.input.write import encode_example, write_tfrecord

pytestmark = pytest.mark.usefixtures("quick_retries")

MODULE = '''
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.models import DeepFMConfig
from monolith_jax.registry import RegisterSingleTaskModel
from monolith_jax.task import InputConfig, SingleTaskModelParams, TaskConfig, TrainConfig

@RegisterSingleTaskModel
class InBucket(SingleTaskModelParams):
    """A model of one table."""

    def task(self):
        return TaskConfig(
            input=InputConfig(start_date="20240101", end_date="20240101", batch_size=16),
            tables=(TableConfig(name="user", vocab_size=10, dim=4),),
            features=(FeatureConfig(name="user", table="user"),),
            model=DeepFMConfig(vectors=("user",), biases=(), hidden=()),
            train=TrainConfig(devices=1),
        )
'''
NAMES = "[[rules]]\nours = 'tables/(.*)'\ntf = 'emb/\\1'\n"


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes the model importable; returns the file of names."""
    (tmp_path / "cli_in_bucket.py").write_text(MODULE)
    (tmp_path / "names.toml").write_text(NAMES)
    monkeypatch.syspath_prepend(tmp_path)
    return str(tmp_path / "names.toml")


def write_data(to: str, tmp_path: Path) -> None:
    records = [encode_example({"user": i % 10, "label": float(i % 2)}) for i in range(48)]
    write_tfrecord(tmp_path / "part-0", records)
    storage.upload(tmp_path / "part-0", f"{to}/20240101/part-0")


def command(name: str, prefix: str, run: str, names: str, *more: str) -> list[str]:
    model = ["--model", "cli_in_bucket.InBucket", "--module", "cli_in_bucket"]
    return [name, prefix, *model, "--model-dir", run, "--names", names, *more]


def test_a_checkpoint_of_a_bucket_is_inspected_imported_trained_on_and_exported(
    gcs: Any, names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, old, new = gcs / "run", gcs / "tf/model.ckpt-7", gcs / "out/model.ckpt"
    write_data(gcs / "data", tmp_path)
    train = ["train", "cli_in_bucket.InBucket", "--module", "cli_in_bucket", "--quiet"]
    train += ["--input.root", gcs / "data", "--model-dir"]
    assert cli.main([*train, gcs / "first"]) == 0  # what it exports has the names and the shapes
    assert cli.main(command("export-tf", gcs / "tf/first", gcs / "first", names)) == 0
    with open_bundle(gcs / "tf/first-3") as bundle:
        tensors = {name: value / 2 for name, value in bundle.read_many().items()}
    write_bundle(old, tensors | {"global_step": np.int64(7)})
    capsys.readouterr()

    assert cli.main(["inspect", old, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["prefix"] == old
    assert [t["shape"] for t in document["tensors"] if t["name"] == "emb/user"] == [[10, 4]]
    assert cli.main(["inspect", f"{old}0"]) == 2
    assert "no such checkpoint" in capsys.readouterr().err

    assert cli.main(command("import-tf", old, run, names, "--dry-run")) == 0
    assert not storage.exists(run)
    assert cli.main(command("import-tf", old, run, names)) == 0
    assert f"step 7 imported to {run}/checkpoints/7" in capsys.readouterr().out
    assert cli.main(command("import-tf", old, run, names)) == 2
    assert "has checkpoints already, of the steps [7]" in capsys.readouterr().err
    assert cli.main(command("export-tf", new, run, names)) == 0
    with open_bundle(f"{new}-7") as bundle:
        assert bundle.read("global_step") == 7
        for name, value in bundle.read_many().items():
            assert np.array_equal(value, tensors[name] if name != "global_step" else 7), name

    capsys.readouterr()
    assert cli.main([*train, run]) == 0
    assert Checkpoints(f"{run}/checkpoints", read_only=True).steps() == [7, 10]
    assert cli.main(command("export-tf", new, run, names, "--keep", "1", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["prefix"] == f"{new}-10"
    state = read_state_file(gcs / "out")
    assert state is not None
    assert state.newest == f"{new}-10"
    assert not storage.exists(f"{new}-7.index")
    assert b"<svg" in storage.read_bytes(f"{run}/report.html")


def test_a_native_checkpoint_of_a_bucket_can_be_inspected(
    gcs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(gcs / "c")
    checkpoints.save(1, {"state": {"w": np.ones((3, 2), np.float32)}}, {})
    checkpoints.close()
    (index,) = storage.glob(gcs / "c/1/*.index")
    assert cli.main(["inspect", index.removesuffix(".index")]) == 0
    assert "state/w  float32  [3, 2]      1     24" in capsys.readouterr().out
