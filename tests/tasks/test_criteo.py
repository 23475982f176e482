"""Criteo: its lines to records, ids by hashing and by vocabulary, and training on them."""

import gzip
import json
import math
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax import cli
from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input import Column, find_files
from monolith_jax.input.dataset import Dataset
from monolith_jax.optimizers import as_optax
from monolith_jax.registry import GetClass
from monolith_jax.tasks import criteo
from monolith_jax.tasks.criteo_data import convert
from monolith_jax.tasks.criteo_tsv import CATEGORIES, LABEL, NUMBERS


def line(label: int, numbers: dict[int, int], categories: dict[int, str]) -> str:
    cells = [str(label)]
    cells += [str(numbers.get(i, "")) for i in range(1, 14)]
    cells += [categories.get(i, "") for i in range(1, 27)]
    return "\t".join(cells)


LINES = [
    line(1, {1: 0, 2: -2, 3: 99}, {1: "0000000a", 2: "ffffffff", 26: "68fd1e64"}),
    line(0, {1: 7}, {1: "0000000a", 2: "0000000b"}),
    line(0, {13: 5}, {1: "0000000b", 2: "0000000b"}),
]


def write(path: Path, lines: list[str]) -> Path:
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def made(count: int, seed: int = 0) -> list[str]:
    """Lines whose label follows the first category, so that a model has something to learn."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        first = int(random.integers(4))
        numbers = {i: int(random.integers(-1, 50)) for i in range(1, 14) if random.random() < 0.8}
        others = {i: f"{random.integers(30):08x}" for i in range(2, 27) if random.random() < 0.9}
        lines.append(line(int(first < 1), numbers, {1: f"{first:08x}"} | others))
    return lines


def read(root: Path, first: str, last: str) -> dict[str, np.ndarray]:
    schema = [Column(name, "float32") for name in (LABEL, *NUMBERS)]
    schema += [Column(name, "int64") for name in CATEGORIES]
    files = find_files(str(root), first, last)
    count = sum(1 for _ in (root / "meta.csv").read_text().splitlines())
    assert len(files) <= count
    dataset = Dataset(files, tuple(schema), batch_size=1000)
    batch = dataset.batch(0)
    return {name: values[: dataset.num_examples] for name, values in batch.columns.items()}


@pytest.mark.parametrize("name", ["train.txt", "day_0.gz"])
def test_numbers_missing_values_and_hashed_categories(tmp_path: Path, name: str) -> None:
    done = convert([write(tmp_path / name, LINES)], tmp_path / "data", buckets=11)
    assert done.records == 3
    assert done.days == ("20000101",)
    assert done.sizes == dict.fromkeys(CATEGORIES, 11)
    data = read(tmp_path / "data", "20000101", "20000101")
    assert data["label"].tolist() == [1, 0, 0]
    assert data["I1"].tolist() == [0.0, np.float32(math.log(8)), 0.0]
    assert data["I2"].tolist() == [0.0, 0.0, 0.0]
    assert data["I3"][0] == np.float32(math.log(100))
    assert data["I13"].tolist() == [0.0, 0.0, np.float32(math.log(6))]
    assert data["C1"].tolist() == [1, 1, 2]
    assert data["C2"].tolist() == [1 + 0xFFFFFFFF % 10, 2, 2]
    assert data["C3"].tolist() == [0, 0, 0]
    assert data["C26"].tolist() == [1 + 0x68FD1E64 % 10, 0, 0]


def test_a_vocabulary_has_the_frequent_ones_by_frequency(tmp_path: Path) -> None:
    root = tmp_path / "data"
    done = convert([write(tmp_path / "a.txt", LINES)], root, min_count=2)
    data = read(root, "20000101", "20000101")
    assert data["C1"].tolist() == [2, 2, 1]
    assert data["C2"].tolist() == [1, 2, 2]
    assert data["C26"].tolist() == [1, 0, 0]
    assert (done.sizes["C1"], done.sizes["C3"]) == (3, 2)
    stored = json.loads((root / "vocabulary.json").read_text())
    assert stored["C1"] == ["(missing)", "(rare)", "0000000a"]


def test_more_days_take_the_ids_that_are_there(tmp_path: Path) -> None:
    root = tmp_path / "data"
    convert([write(tmp_path / "day_0", LINES)], root, min_count=1)
    before = (root / "vocabulary.json").read_bytes()
    new = [line(0, {}, {1: "0000000b", 2: "12345678"})]
    convert([write(tmp_path / "day_1", new)], root, min_count=1)
    assert (root / "vocabulary.json").read_bytes() == before
    data = read(root, "20000102", "20000102")
    assert (data["C1"].tolist(), data["C2"].tolist()) == ([3], [1])
    with pytest.raises(DataError, match=r"\"min_count\": 1.*not with.*\"buckets\": 100000"):
        convert([write(tmp_path / "day_2", new)], root)


def test_a_vocabulary_does_not_depend_on_the_order_of_lines(tmp_path: Path) -> None:
    lines = made(60)
    for name, some in (("a", lines), ("b", lines[::-1])):
        convert([write(tmp_path / f"{name}.txt", some)], tmp_path / name, min_count=2)
    first, second = (tmp_path / name / "vocabulary.json" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_days_by_name_by_order_and_by_cutting(tmp_path: Path) -> None:
    some = made(40)
    named = convert([write(tmp_path / f"day_{i}", some) for i in (3, 1)], tmp_path / "n")
    assert named.days == ("20000102", "20000104")
    ordered = convert(
        [write(tmp_path / f"{i}.tsv", some) for i in "ab"], tmp_path / "o", first_day="20240229"
    )
    assert ordered.days == ("20240229", "20240301")
    cut = convert([tmp_path / "a.tsv"], tmp_path / "c", days=4)
    assert cut.days == ("20000101", "20000102", "20000103", "20000104")
    # The lines keep their order over days and hours.
    labels = [int(text[0]) for text in some]
    assert read(tmp_path / "c", "20000101", "20000104")["label"].tolist() == labels
    assert read(tmp_path / "n", "20000104", "20000104")["label"].tolist() == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\t2", r"a.txt:2: 2 cells, expected 40"),
        (LINES[0][2:], r"a.txt:2: 39 cells, expected 40; is this a test file"),
        ("2" + LINES[0][1:], r"a.txt:2: column label: '2' is not 0 or 1"),
        (LINES[0].replace("99", "9.5"), r"a.txt:2: column I3: '9.5' is not an integer"),
        (LINES[0].replace("68fd1e64", "68fd1e6g"), r"column C26: '68fd1e6g' is not at most 15 hex"),
        (LINES[0].replace("68fd1e64", "0x12"), r"column C26: '0x12'"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_written(
    tmp_path: Path, text: str, message: str
) -> None:
    file = write(tmp_path / "a.txt", [LINES[1], text])
    with pytest.raises(DataError, match=message):
        convert([file], tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_damaged_archives_and_missing_files_are_named(tmp_path: Path) -> None:
    cut = write(tmp_path / "day_0.gz", made(200))
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"day_0.gz: after line \d+: "):
        convert([cut], tmp_path / "data")
    with pytest.raises(DataError, match=r"nothing\.txt: cannot be read: No such file"):
        convert([tmp_path / "nothing.txt"], tmp_path / "data")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buckets": 1}, "buckets must be at least 2, got 1"),
        ({"min_count": 0}, "min_count must be at least 1, got 0"),
        ({"first_day": "20240230"}, "first day '20240230' is no date YYYYMMDD"),
        ({"first_day": "2024-1-1"}, "is no date"),
        ({"days": 0}, "days 0: at least 1"),
        ({"days": 9_999_999}, r"a\.txt: its last day would be after the year 9999"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert([write(tmp_path / "a.txt", LINES)], tmp_path / "data", **changes)


@pytest.mark.parametrize("min_count", [None, 1])
def test_files_without_a_line_are_refused_and_nothing_is_written(
    tmp_path: Path, min_count: int | None
) -> None:
    empty = write(tmp_path / "a.txt", [])
    with pytest.raises(DataError, match=r"no lines in .*a\.txt"):
        convert([empty], tmp_path / "data", min_count=min_count)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_day_that_is_there_leaves_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "data" / "20000101").mkdir(parents=True)
    with pytest.raises(DataError, match="20000101"):
        convert([write(tmp_path / "a.txt", LINES)], tmp_path / "data", min_count=1)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["20000101"]


def test_two_files_of_one_day_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [write(tmp_path / "day_0", LINES), write(tmp_path / "x" / "day_0.gz", LINES)]
    with pytest.raises(ConfigError, match="would both be 20000101"):
        convert(files, tmp_path / "data")


@pytest.mark.parametrize("key", ["criteo.DLRM", "criteo.DCNv2"])
def test_trains_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """Converts, then runs the line that the conversion printed; the label is there to be learnt."""
    files = [str(write(tmp_path / f"day_{i}.gz", made(1000, seed=i))) for i in (0, 1)]
    root = tmp_path / "data"
    assert cli.main(["data", "criteo", *files, "--root", str(root), "--min-count", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"2,000 records in 2 days under {root}"
    arguments = printed[1].split()[1:]
    assert arguments[:2] == ["train", "criteo.DLRM"]
    arguments[1] = key
    arguments[arguments.index("MODEL_DIR")] = str(tmp_path / "model")
    arguments[arguments.index("--input.end_date") + 1] = "20000101"
    arguments += ["--input.eval_start_date", "20000102", "--input.eval_end_date", "20000102"]
    arguments += ["--input.batch_size", "100", "--train.epochs", "6", "--train.devices", "1"]
    assert cli.main(arguments) == 0
    text = (tmp_path / "model" / "metrics.jsonl").read_text()
    rows = [json.loads(row) for row in text.splitlines()]
    last = [row for row in rows if "auc" in row][-1]
    assert last["auc"] > 0.9
    assert re.search(r"done: step 60", capsys.readouterr().err)


def test_mlperf_has_the_published_sizes() -> None:
    for key in ("criteo.MLPerfDLRM", "criteo.MLPerfDCNv2"):
        task = GetClass(key)().task()
        assert sum(table.vocab_size for table in task.tables) == 204_184_588
        assert {table.dim for table in task.tables} == {128}
        assert len(task.tables) == 26
        assert sum(feature.max_length for feature in task.features) == 214
        assert task.input.batch_size == criteo.MLPERF_BATCH == 65_536
        assert task.model.bottom == (512, 256, 128)
        assert task.model.top == (1024, 1024, 512, 256)
    assert (task.model.layers, task.model.rank) == (3, 512)


def test_mlperfs_adagrad_starts_as_the_published_one() -> None:
    """Against g / (sqrt(g^2) + eps), for gradients as small as a batch of 65,536 makes them."""
    rule = GetClass("criteo.MLPerfDCNv2")().task().optimizer
    gradient = np.float32([1e-9, 1e-7, -1e-5, 1e-2, 0.0])
    state = as_optax(rule).init(jnp.zeros(5))
    updates, _ = as_optax(rule).update(jnp.asarray(gradient), state, jnp.zeros(5))
    wide = gradient.astype(np.float64)
    np.testing.assert_allclose(updates, -0.005 * wide / (np.abs(wide) + 1e-10), rtol=0.11)
