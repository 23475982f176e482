"""The command line: what it prints, and one clear line with exit code 2 for every bad input."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from monolith_jax import cli
from monolith_jax.input.write import encode_example, write_tfrecord

MODULE = '''
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.models import DeepFMConfig
from monolith_jax.registry import RegisterSingleTaskModel
from monolith_jax.task import InputConfig, SingleTaskModelParams, TaskConfig, TrainConfig

@RegisterSingleTaskModel
class Tiny(SingleTaskModelParams):
    """A model of one feature."""

    def task(self):
        return TaskConfig(
            input=InputConfig(
                start_date="20240101", end_date="20240101", eval_start_date="20240102",
                eval_end_date="20240102", batch_size=16,
            ),
            tables=(TableConfig(name="user", vocab_size=10, dim=4),),
            features=(FeatureConfig(name="user", table="user"),),
            model=DeepFMConfig(vectors=("user",), biases=(), hidden=(4,)),
            train=TrainConfig(devices=1),
        )
'''


def write_day(root: Path, day: str, **changes: object) -> None:
    random = np.random.default_rng(int(day))
    records = []
    for _ in range(40):
        example = {"user": int(random.integers(10)), "label": float(random.integers(2))}
        records.append(encode_example({k: v for k, v in (example | changes).items() if v != ()}))
    (root / day).mkdir(parents=True)
    write_tfrecord(root / day / "part-0", records)


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    for number, handler in handlers:
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for day in ("20240101", "20240102"):
        write_day(root, day)
    return root


@pytest.fixture(scope="module", autouse=True)
def _tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "cli_tiny.py").write_text(MODULE)
    (folder / "cli_broken.py").write_text("import a_package_that_is_not_there\n")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def tiny(command: str, model_dir: Path, root: Path, *fields: str) -> list[str]:
    key = ["cli_tiny.Tiny", "--module", "cli_tiny", "--model-dir", str(model_dir)]
    return [command, *key, "--input.root", str(root), *fields]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the one line that a bad command prints, after checking that it exits with 2."""
    assert cli.main(arguments) == 2
    printed = capsys.readouterr().err
    lines = [line for line in printed.splitlines() if line.startswith("monolith-jax: ")]
    assert len(lines) == 1, printed
    assert printed.splitlines()[-1] == lines[0]
    assert "Traceback" not in printed
    return lines[0]


def test_train_then_eval(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(tiny("train", tmp_path, data, "--train.log_every=1")) == 0
    printed = capsys.readouterr().err
    assert "step 3/3 (100%)" in printed
    assert "ETA" in printed
    assert "done: step 3" in printed
    assert cli.main(tiny("eval", tmp_path, data, "--train.log_every=1")) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["step"] == 3
    assert row["examples"] == 40


def test_quiet_prints_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*tiny("train", tmp_path, data), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_models_lists_keys_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith("movielens.DeepFM "))
    assert "MovieLens-100K" in line
    assert cli.main(["models", "-v"]) == 0
    assert "movielens.py:" in capsys.readouterr().out


def test_help_after_a_key_shows_every_field_with_doc_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["train", "movielens.DeepFM", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--input.batch_size int = " in printed
    assert "Examples per step, over all devices together." in printed
    assert "--tables.user_id.optimizer.learning_rate" in printed
    assert "--model.hidden tuple[int, ...] = " in printed


@pytest.mark.parametrize("command", [[], ["train"], ["eval"], ["models"], ["data"]])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main([*command, "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    assert "usage: monolith-jax" in capsys.readouterr().out


def test_unknown_model_lists_near_misses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_of(["train", "movielens.DeepFn", "--model-dir", str(tmp_path)], capsys)
    assert "movielens.DeepFM" in line


def test_a_module_that_fails_to_import_shows_the_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "cli_broken.Model", "--module", "cli_broken", "--model-dir", "x"]
    line = error_of(arguments, capsys)
    assert "cli_broken" in line
    assert "No module named 'a_package_that_is_not_there'" in line


def test_no_files_in_the_range_says_what_was_searched(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = ["--input.start_date=20230101", "--input.end_date=20230102"]
    line = error_of(tiny("train", tmp_path, data, *fields), capsys)
    assert str(data) in line
    assert "20230101" in line
    assert "20240101" in line


def test_start_after_end(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of(tiny("train", tmp_path, data, "--input.end_date=20231231"), capsys)
    assert "start_date 2024-01-01 is after end_date 2023-12-31" in line


def test_missing_feature_names_file_and_feature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_day(tmp_path / "data", "20240101", user=())
    write_day(tmp_path / "data", "20240102")
    line = error_of(tiny("train", tmp_path / "run", tmp_path / "data"), capsys)
    assert "20240101/part-0" in line
    assert "'user'" in line


def test_feature_of_another_type_says_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_day(tmp_path / "data", "20240101", user=1.5)
    write_day(tmp_path / "data", "20240102")
    line = error_of(tiny("train", tmp_path / "run", tmp_path / "data"), capsys)
    assert "20240101/part-0" in line
    assert "'user'" in line
    assert "float" in line


def test_id_beyond_the_table_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_day(tmp_path / "data", "20240101", user=10)
    write_day(tmp_path / "data", "20240102")
    line = error_of(tiny("train", tmp_path / "run", tmp_path / "data"), capsys)
    assert "user" in line
    assert "10" in line


def test_a_damaged_record_names_file_and_offset_and_can_be_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in ("20240101", "20240102"):
        write_day(tmp_path / "data", day)
    file = tmp_path / "data" / "20240101" / "part-0"
    damaged = bytearray(file.read_bytes())
    damaged[20] ^= 0xFF
    file.write_bytes(damaged)
    line = error_of(tiny("train", tmp_path / "run", tmp_path / "data"), capsys)
    assert "20240101/part-0" in line
    assert "record 0 at byte 0 does not match its checksum" in line
    skipping = tiny("train", tmp_path / "run2", tmp_path / "data", "--input.skip_damaged=true")
    assert cli.main(skipping) == 0
    assert "39 examples an epoch" in capsys.readouterr().err


def test_batch_size_that_does_not_divide(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = ["--input.batch_size=30", "--train.devices=8"]
    line = error_of(tiny("train", tmp_path, data, *fields), capsys)
    assert "24 and 32" in line


def test_model_dir_of_another_config_names_the_fields(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(tiny("train", tmp_path, data)) == 0
    line = error_of(tiny("train", tmp_path, data, "--tables.user.dim=8"), capsys)
    assert "tables.user.dim: 4 -> 8" in line


def test_model_dir_of_another_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(tiny("train", tmp_path, data)) == 0
    other = ["train", "movielens.DeepFM", "--model-dir", str(tmp_path), "--input.root", str(data)]
    assert "is the model dir of cli_tiny.Tiny" in error_of(other, capsys)


def test_a_model_dir_that_cannot_be_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    line = error_of(tiny("train", tmp_path / "file" / "run", data), capsys)
    assert f"{tmp_path}/file/run cannot be written: Not a directory" in line


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("--input.batchsize=3", "did you mean batch_size?"),
        ("--inputs.batch_size=3", "did you mean input?"),
        ("--input.batch_size=many", "'many' is not an integer"),
        ("--input.batch_size=0", "must be at least 1"),
        ("--tables.usr.dim=8", "did you mean user?"),
        ("--loss=logless", "'logless' is not one of logloss, squared"),
        ("--optimizer=adm", "did you mean adam"),
        ("--train.seed", "needs a value"),
    ],
)
def test_a_bad_field_names_the_nearest(
    field: str, expected: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in error_of(tiny("train", tmp_path, data, field), capsys)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"movielens\.DeepFM"):
        cli.main(["--debug", "train", "movielens.DeepFn", "--model-dir", str(tmp_path)])


@pytest.mark.parametrize("arguments", [["train"], ["train", "movielens.DeepFM"], ["trian"], []])
def test_bad_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: monolith-jax" in capsys.readouterr().err
