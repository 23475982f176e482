"""`plan --save`, `train --compiled` and `train --compile-cache`, from end to end."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax import cli
from monolith_jax.ahead import file
from monolith_jax.embedding.sparsecore import library_missing
from monolith_jax.input.write import encode_example, write_tfrecord

MODULE = '''
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.models import DeepFMConfig
from monolith_jax.registry import RegisterSingleTaskModel
from monolith_jax.task import InputConfig, SingleTaskModelParams, TaskConfig

@RegisterSingleTaskModel
class Tiny(SingleTaskModelParams):
    """A model of one feature."""

    def task(self):
        return TaskConfig(
            input=InputConfig(start_date="20240101", end_date="20240101", batch_size=16),
            tables=(TableConfig(name="user", vocab_size=1000, dim=4),),
            features=(FeatureConfig(name="user", table="user"),),
            model=DeepFMConfig(vectors=("user",), biases=(), hidden=(4,)),
        )
'''


TPUS = {
    # A v5litepod-8 is one host.
    "v5e:2x4": {"device kind": "TPU v5 lite", "devices": "8", "hosts": "1", "engine": "xla"},
    "v5p:2x2x1": {
        "device kind": "TPU v5",
        "devices": "4",
        "engine": "xla" if library_missing() else "sparsecore",
    },
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model's module and its data."""
    folder = tmp_path_factory.mktemp("ahead")
    (folder / "ahead_tiny.py").write_text(MODULE)
    random = np.random.default_rng(0)
    examples = [
        encode_example({"user": int(random.integers(1000)), "label": float(random.integers(2))})
        for _ in range(64)
    ]
    (folder / "data" / "20240101").mkdir(parents=True)
    write_tfrecord(folder / "data" / "20240101" / "part-0", examples)
    sys.path.insert(0, str(folder))
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield folder
    for number, handler in handlers:
        signal.signal(number, handler)
    sys.path.remove(str(folder))


def command(name: str, *flags: str) -> list[str]:
    return [name, "ahead_tiny.Tiny", "--module", "ahead_tiny", *flags]


def train(here: Path, run: str, *flags: str) -> list[str]:
    fields = ("--model-dir", str(here / run), "--input.root", str(here / "data"))
    return command("train", *fields, *flags)


def rows(model_dir: Path) -> list[dict[str, Any]]:
    timed = {"seconds", "examples_per_second"}
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def test_a_step_is_compiled_ahead_and_taken(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    steps, cache = str(here / "steps"), str(here / "cache")
    fields = ("--input.root", str(here / "data"))
    devices = f"cpu:{len(jax.devices())}"
    assert cli.main(command("plan", "--topology", devices, "--save", steps, *fields)) == 0
    saved = capsys.readouterr().out.removeprefix("saved ").strip()
    assert Path(saved).parent == Path(steps)

    jax.clear_caches()
    took = train(here, "took", "--compiled", steps, "--compile-cache", cache)
    assert cli.main(took) == 0
    assert f"took {saved}, loaded in" in capsys.readouterr().err

    jax.clear_caches()
    assert cli.main(train(here, "compiled", "--compile-cache", cache)) == 0
    said = capsys.readouterr().err
    # All but the step, which the first run did not compile.
    assert re.search(r"\d+ compiled programs taken from .*, 1 compiled and kept there", said)
    assert rows(here / "took") == rows(here / "compiled")


def test_a_restart_compiles_nothing(here: Path) -> None:
    said = []
    for run in ("first", "second"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "monolith_jax.cli"),
                *train(here, run, "--compile-cache", str(here / "kept")),
            ],
            env={**os.environ, "PYTHONPATH": str(here)},
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        said.append(done.stderr.splitlines()[-1])
    first, second = (
        re.match(r"(\d+) compiled programs taken from .*, (\d+) compiled and kept", line).groups()  # type: ignore[union-attr]
        for line in said
    )
    assert first[0] == "0"
    assert int(first[1]) > 5
    assert second == (first[1], "0")
    assert rows(here / "first") == rows(here / "second")


def test_a_folder_without_steps_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(train(here, "none", "--compiled", str(here / "nowhere"))) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "nowhere: no such file or folder" in said


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="pip install libtpu")
def test_a_step_for_tpus_is_kept_whole_and_a_cpu_says_what_differs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "tpu"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "monolith_jax.cli"),
            *command("plan", "--topology", ",".join(TPUS), "--save", str(folder)),
        ],
        env={**os.environ, "PYTHONPATH": str(here), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    paths = sorted(folder.iterdir())
    assert len(paths) == len(TPUS)
    for (topology, wanted), path in zip(TPUS.items(), paths, strict=True):
        assert f"{topology}: step saved to {path}" in done.stdout
        header, packed = file.read(str(path))
        assert len(file.unpack(str(path), header, packed)) > 10_000
        about = header["environment"]
        assert (wanted | {"platform": "tpu", "jax": jax.__version__}).items() <= about.items()
        assert about["compiler"].startswith("Built on ")
        assert set(header["room"]) == {"dim4_adagrad"}

    assert cli.main(train(here, "cpu", "--compiled", str(folder))) == 0
    said = capsys.readouterr().err
    for path in paths:
        assert f"{path} is not taken: platform: tpu saved, cpu here; compiler: " in said
    assert "the step is compiled here" in said
