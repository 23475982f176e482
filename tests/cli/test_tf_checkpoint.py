"""`import-tf`, `export-tf` and `inspect` on the command line."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monolith_jax import cli
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.checkpoint.tf import open_bundle, write_bundle
from monolith_jax.input.write import encode_example, write_tfrecord

MODULE = '''
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.models import DeepFMConfig
from monolith_jax.optimizers import Adam
from monolith_jax.registry import RegisterSingleTaskModel
from monolith_jax.task import InputConfig, SingleTaskModelParams, TaskConfig, TrainConfig

@RegisterSingleTaskModel
class Imported(SingleTaskModelParams):
    """A model of two features."""

    def task(self):
        return TaskConfig(
            input=InputConfig(start_date="20240101", end_date="20240101", batch_size=16),
            tables=(
                TableConfig(name="user", vocab_size=10, dim=4),
                TableConfig(name="item", vocab_size=6, dim=4, optimizer=Adam()),
            ),
            features=(
                FeatureConfig(name="user", table="user"), FeatureConfig(name="item", table="item")
            ),
            model=DeepFMConfig(vectors=("user", "item"), biases=(), hidden=()),
            train=TrainConfig(devices=1),
        )
'''
SHAPES = {
    "emb/user": (10, 4),
    "emb/user/Adagrad": (10, 4),
    "emb/item": (6, 4),
    "emb/item/Adam": (6, 4),
    "emb/item/Adam_1": (6, 4),
    "bias": (),
    "bias/Adam": (),
    "bias/Adam_1": (),
    "deep/out/kernel": (8, 1),
    "deep/out/kernel/Adam": (8, 1),
    "deep/out/kernel/Adam_1": (8, 1),
    "deep/out/bias": (1,),
    "deep/out/bias/Adam": (1,),
    "deep/out/bias/Adam_1": (1,),
    "beta1_power": (),
    "beta2_power": (),
}
NAMES = "[[rules]]\nours = 'tables/(.*)'\ntf = 'emb/\\1'\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("imports"), np.random.default_rng(0)
    (folder / "cli_imported.py").write_text(MODULE)
    (folder / "names.toml").write_text(NAMES)
    (folder / "data" / "20240101").mkdir(parents=True)
    records = [
        encode_example({"user": i % 10, "item": i % 6, "label": float(i % 2)}) for i in range(48)
    ]
    write_tfrecord(folder / "data" / "20240101" / "part-0", records)
    tensors = {n: random.uniform(0.1, 0.9, s).astype(np.float32) for n, s in SHAPES.items()}
    write_bundle(folder / "model.ckpt-7", tensors | {"global_step": np.int64(7)})
    return folder


@pytest.fixture(autouse=True)
def _module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)


def command(name: str, folder: Path, prefix: Path, model_dir: Path, *more: str) -> list[str]:
    model = ["--model", "cli_imported.Imported", "--module", "cli_imported"]
    return [
        *(name, str(prefix), *model, "--model-dir", str(model_dir)),
        *("--names", str(folder / "names.toml"), *more),
    ]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("monolith-jax: ")
    return lines[-1]


def steps(model_dir: Path) -> list[int]:
    return Checkpoints(str(model_dir / "checkpoints"), read_only=True).steps()


def equal(one: Path, other: Path) -> bool:
    a, b = open_bundle(one).read_many(), open_bundle(other).read_many()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_what_is_imported_is_trained_on_and_exported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, run, out = folder / "model.ckpt-7", tmp_path / "run", tmp_path / "out" / "model.ckpt"
    out.parent.mkdir()
    assert cli.main(command("import-tf", folder, source, run)) == 0
    printed = capsys.readouterr().out
    assert ["matched", "tables/user", "<-", "emb/user", "[10,", "4]"] in [
        line.split() for line in printed.splitlines()
    ]
    assert "19 matched, 0 missing, 0 disagree, 0 left over, 0 ignored" in printed
    assert f"step 7 imported to {run}/checkpoints/7" in printed

    assert cli.main(command("export-tf", folder, out, run)) == 0
    assert f"step 7 exported to {out}-7" in capsys.readouterr().out
    assert equal(Path(f"{out}-7"), source)

    key = ["cli_imported.Imported", "--module", "cli_imported", "--model-dir", str(run)]
    data = ["--input.root", str(folder / "data")]
    assert cli.main(["train", *key, *data, "--quiet"]) == 0
    assert steps(run) == [7, 10]  # the data's three batches, from the first on
    assert cli.main(command("export-tf", folder, out, run, "--json")) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["prefix"], done["step"]) == (f"{out}-10", 10)
    assert done["names"]["tables/item@v"] == "emb/item/Adam_1"
    with open_bundle(done["prefix"]) as bundle:
        assert bundle.read("global_step") == 10
        assert not np.array_equal(bundle.read("emb/user"), open_bundle(source).read("emb/user"))

    line = error_of(command("import-tf", folder, source, run), capsys)
    assert "has checkpoints already, of the steps [7, 10]" in line
    line = error_of(command("export-tf", folder, out, run, "--step", "8"), capsys)
    assert "no checkpoint of step 8; there are: [7, 10]" in line


def test_a_dry_run_reports_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    dry = command("import-tf", folder, folder / "model.ckpt-7", run, "--dry-run")
    dry[dry.index("--names") : dry.index("--names") + 2] = []
    assert cli.main(dry) == 0
    printed = capsys.readouterr().out
    assert "MISSING    no 'user' for tables/user; did you mean emb/user?" in printed
    assert "LEFT OVER  emb/user/Adagrad  float32[10, 4]" in printed
    assert cli.main([*dry, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["missing"][0] == {"ours": "tables/user", "tf": "user", "near": ["emb/user"]}
    assert not run.exists()
    line = error_of([argument for argument in dry if argument != "--dry-run"], capsys)
    assert "no 'user' for tables/user; did you mean emb/user?" in line
    assert not run.exists()


def test_what_is_missing_may_start_anew_but_shapes_must_agree(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = open_bundle(folder / "model.ckpt-7").read_many()
    few = {name: tensors[name] for name in ("emb/user", "bias")}
    write_bundle(tmp_path / "few", few)
    run = tmp_path / "run"
    line = error_of(command("import-tf", folder, tmp_path / "few", run, "--partial"), capsys)
    assert "does not say its step: give it (--step N)" in line
    arguments = command("import-tf", folder, tmp_path / "few", run, "--partial", "--step", "40")
    assert cli.main(arguments) == 0
    assert steps(run) == [40]
    assert cli.main(command("export-tf", folder, tmp_path / "back", run)) == 0
    with open_bundle(tmp_path / "back-40") as bundle:
        assert np.array_equal(bundle.read("emb/user"), few["emb/user"])
        assert np.all(bundle.read("emb/user/Adagrad") == np.float32(0.1))
        assert bundle.read("beta1_power") == np.float32(0.9)
        assert bundle.read("global_step") == 40

    write_bundle(tmp_path / "wide", tensors | {"emb/user": np.zeros((11, 4), np.float32)})
    arguments = command("import-tf", folder, tmp_path / "wide", tmp_path / "r2", "--partial")
    assert "emb/user has shape (11, 4), ours (10, 4)" in error_of(arguments, capsys)
    assert not (tmp_path / "r2").exists()


def test_an_import_that_is_killed_while_it_saves_leaves_nothing_and_is_done_again(
    folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = command("import-tf", folder, folder / "model.ckpt-7", run)
    code = (
        "import os, signal, sys\n"
        "from monolith_jax import cli\n"
        "from monolith_jax.checkpoint.native import Checkpoints\n"
        "import orbax.checkpoint._src.path.atomicity as atomicity\n"
        "for kind in vars(atomicity).values():\n"
        "    if hasattr(kind, 'finalize'):\n"
        "        async def killed(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "        kind.finalize = killed\n"
        "cli.main(sys.argv[1:])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert any((run / "checkpoints").iterdir())  # it had begun
    assert steps(run) == []
    assert cli.main(arguments) == 0
    assert steps(run) == [7]


def test_inspect_lists_names_dtypes_shapes_parts_and_sizes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = str(folder / "model.ckpt-7")
    assert cli.main(["inspect", prefix]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "dtype", "shape", "parts", "bytes"]
    assert ["emb/user", "float32", "[10,", "4]", "1", "160"] in [line.split() for line in lines]
    assert lines[-1] == "17 tensors, 744 bytes, in 1 data file"
    assert cli.main(["inspect", prefix, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tensors"][0] == {
        "name": "beta1_power",
        "dtype": "float32",
        "shape": [],
        "parts": 1,
        "bytes": 4,
    }
    assert "no such checkpoint" in error_of(["inspect", f"{prefix}0"], capsys)
