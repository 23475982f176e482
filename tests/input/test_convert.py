import gzip
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input.convert import Converted, convert
from monolith_jax.input.convert_cells import to_seconds
from monolith_jax.input.convert_schema import load_schema, parse_schema

DOCUMENT: dict[str, Any] = {
    "timestamp": {"column": "time", "unit": "ms", "feature": "timestamp"},
    "columns": {
        "user": {"feature": "user_id", "hash_buckets": 1000},
        "country": {"vocabulary": ["de", "fr"], "unknown": 2, "default": 3},
        "genres": {"separator": "|", "vocabulary": "build"},
        "scores": {"separator": " ", "dtype": "float32"},
        "price": {"dtype": "float32", "default": 0},
        "clicks": {},
    },
}
CSV = """time,unused,user,country,genres,scores,price,clicks
874724710123,x,ann,fr,War|Comedy,0.5 -1,2.5,-3
874724711000,y,"b,o""b",xx,,,,7
874810000000,z,ann,,Comedy|Drama,1e3,.5,0
"""


def hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") % 1000


EXPECTED = [
    {
        "timestamp": [874724710],
        "user_id": [hashed("ann")],
        "country": [1],
        "genres": [0, 1],
        "scores": [0.5, -1.0],
        "price": [2.5],
        "clicks": [-3],
    },
    {
        "timestamp": [874724711],
        "user_id": [hashed('b,o"b')],
        "country": [2],
        "genres": [],
        "scores": [],
        "price": [0.0],
        "clicks": [7],
    },
    {
        "timestamp": [874810000],
        "user_id": [hashed("ann")],
        "country": [3],
        "genres": [1, 2],
        "scores": [1000.0],
        "price": [0.5],
        "clicks": [0],
    },
]
FLOATS = {"scores", "price"}
NO_PYARROW = "parquet needs: pip install -e '.[data]'"


def read(tf: Any, root: Path) -> list[dict[str, Any]]:
    """All examples under `root`, in ascending order of files, through TensorFlow."""
    examples = []
    for path in sorted(root.glob("[0-9]*/*/part-*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            row = {}
            for name, feature in tf.train.Example.FromString(record).features.feature.items():
                kind = feature.WhichOneof("kind")
                assert kind == ("float_list" if name in FLOATS else "int64_list")
                row[name] = list(getattr(feature, kind).value)
            examples.append(row)
    return examples


def changed(**changes: Any) -> dict[str, Any]:
    """DOCUMENT with other columns or sections; None removes."""
    document = json.loads(json.dumps(DOCUMENT))
    for key, value in changes.items():
        section = document if key in ("timestamp", "columns", "csv") else document["columns"]
        section[key] = value
        if value is None:
            del section[key]
    return document


def run(tmp_path: Path, text: str = CSV, document: dict[str, Any] = DOCUMENT) -> Converted:
    (tmp_path / "rows.csv").write_text(text)
    return convert([tmp_path / "rows.csv"], parse_schema(document), tmp_path / "root")


def test_csv(tf: Any, tmp_path: Path) -> None:
    assert run(tmp_path) == Converted(3, 2, {"country": 2, "genres": 3})
    root = tmp_path / "root"
    assert read(tf, root) == EXPECTED
    assert json.loads((root / "vocabulary.json").read_text()) == {
        "country": ["de", "fr"],
        "genres": ["War", "Comedy", "Drama"],
    }
    assert (root / "meta.csv").read_text() == "19970920/03/part-00000,2\n19970921/02/part-00000,1\n"


def write_gzip(path: Path) -> Path:
    path = path.with_name("rows.csv.gz")
    path.write_bytes(gzip.compress(CSV.encode()))
    return path


def write_with_mark(path: Path) -> Path:
    path.write_text(CSV.replace("time", "\ufefftime"), encoding="utf-8")
    return path


def write_dos_lines_and_gaps(path: Path) -> Path:
    path.write_text(CSV.replace("\n", "\n\n"), newline="\r\n")
    return path


@pytest.mark.parametrize("write", [write_gzip, write_with_mark, write_dos_lines_and_gaps])
def test_other_forms_of_csv(tf: Any, tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "rows.csv")
    convert([path], parse_schema(DOCUMENT), tmp_path / "root")
    assert read(tf, tmp_path / "root") == EXPECTED


def test_tsv_without_header_in_another_encoding(tf: Any, tmp_path: Path) -> None:
    names = CSV.partition("\n")[0].split(",")
    document = changed(
        csv={"delimiter": "\t", "names": names, "encoding": "utf-16"}, country={"vocabulary": ["é"]}
    )
    (tmp_path / "rows.tsv").write_text("0\t\tu\té\t\t\t1\t2\n", encoding="utf-16")
    convert([tmp_path / "rows.tsv"], parse_schema(document), tmp_path / "root")
    (row,) = read(tf, tmp_path / "root")
    assert row["country"] == [0]
    assert row["clicks"] == [2]


def table() -> dict[str, list[Any]]:
    zone = timezone(timedelta(hours=2))
    return {
        "time": [datetime.fromtimestamp(t / 1000, zone) for t in (874724710123, 874724711000)],
        "unused": [None, None],
        "user": ["ann", 'b,o"b'],
        "country": ["fr", "xx"],
        "genres": [["War", "Comedy"], []],
        "scores": [[0.5, -1.0], None],
        "price": [2.5, None],
        "clicks": [-3, 7],
    }


@pytest.mark.parametrize("unit", ["ms", "ns"])
def test_parquet(tf: Any, tmp_path: Path, unit: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason=NO_PYARROW)
    parquet = pytest.importorskip("pyarrow.parquet")
    data = pyarrow.table(table())
    times = data["time"].cast(pyarrow.timestamp(unit, "Europe/Berlin"))
    data = data.set_column(0, "time", times)
    parquet.write_table(data, tmp_path / "rows.parquet")
    done = convert([tmp_path / "rows.parquet"], parse_schema(DOCUMENT), tmp_path / "root")
    assert done == Converted(2, 1, {"country": 2, "genres": 2})
    assert read(tf, tmp_path / "root") == EXPECTED[:2]


def test_parquet_errors_name_the_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason=NO_PYARROW)
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table(table() | {"clicks": [1.0, 2.5]}), path)
    schema = parse_schema(DOCUMENT)
    with pytest.raises(DataError, match=r"rows.parquet: row 2: column 'clicks': 2.5 is not an int"):
        convert([path], schema, tmp_path / "root")
    parquet.write_table(pyarrow.table(table()).rename_columns(["t", *table()][:8]), path)
    with pytest.raises(DataError, match=r"rows.parquet: no column named 'clicks'"):
        convert([path], schema, tmp_path / "root")
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"rows.parquet: "):
        convert([path], schema, tmp_path / "root")
    assert os.listdir(tmp_path / "root") == []


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pip install 'monolith-jax\[data\]'"):
        convert([tmp_path / "rows.parquet"], parse_schema(DOCUMENT), tmp_path / "root")


def test_days_are_added_and_built_ids_go_on(tf: Any, tmp_path: Path) -> None:
    run(tmp_path)
    header = CSV.partition("\n")[0]
    run(tmp_path, f"{header}\n0,,u,de,Horror|War,,,1\n")
    root = tmp_path / "root"
    assert read(tf, root)[0]["genres"] == [3, 0]
    assert read(tf, root)[1:] == EXPECTED
    texts = ["War", "Comedy", "Drama", "Horror"]
    assert json.loads((root / "vocabulary.json").read_text())["genres"] == texts
    assert len((root / "meta.csv").read_text().splitlines()) == 3
    with pytest.raises(DataError, match=r"rows.csv:2: .*19970920 is there already"):
        run(tmp_path)
    with pytest.raises(DataError, match="'country' has other ids in the days already there"):
        run(tmp_path, document=changed(country={"vocabulary": ["fr", "de"]}))
    (root / "vocabulary.json").write_text("[1]")
    with pytest.raises(DataError, match=r"vocabulary.json: not a vocabulary"):
        run(tmp_path)


def test_progress(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        day = 0 if name == "a.csv" else 86400
        rows = "".join(f"{day + i % 60},{i}\n" for i in range(15_000))
        (tmp_path / name).write_text("time,x\n" + rows)
    schema = parse_schema({"timestamp": {"column": "time"}, "columns": {"x": {}}})
    calls: list[tuple[str, float, int]] = []
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    convert(files, schema, tmp_path / "root", progress=lambda *call: calls.append(call))
    assert [(Path(name).name, rows) for name, _, rows in calls] == [
        ("a.csv", 10_000),
        ("a.csv", 15_000),
        ("b.csv", 20_000),
        ("b.csv", 30_000),
        ("b.csv", 30_000),
    ]
    fractions = [fraction for _, fraction, _ in calls]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < 0.5
    assert fractions[1] == pytest.approx(0.5, abs=0.1)
    assert fractions[-1] == 1


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (",-3\n", ",three\n", r"rows.csv:2: column 'clicks': 'three' is not an integer"),
        (",-3\n", ",1_0\n", r"rows.csv:2: column 'clicks': '1_0' is not an integer"),
        (",-3\n", ",9223372036854775808\n", r"rows.csv:2: column 'clicks': .* is outside int64"),
        (",-3\n", ",\n", r"rows.csv:2: column 'clicks': the cell is empty and the schema gives no"),
        (",7\n", "\n", r"rows.csv:3: 7 cells, but 8 columns"),
        (",2.5,", ",nan,", r"rows.csv:2: column 'price': 'nan' is not a finite float32"),
        (",2.5,", ",1e39,", r"rows.csv:2: column 'price': '1e39' is not a finite float32"),
        ("0.5 -1", "0.5 x", r"rows.csv:2: column 'scores': 'x' is not a finite float32"),
        ("874724710123", "soon", r"rows.csv:2: column 'time': 'soon' is not a time in ms"),
        ("874724710123", "", r"rows.csv:2: column 'time': '' is not a time in ms"),
        ("874724710123", "9" * 18, r"rows.csv:2: timestamp .* is its unit right\?"),
        ('"b,o""b"', '"bob', r"rows.csv: after line 2: unexpected end of data"),
        ("clicks\n", "click\n", r"rows.csv:1: no column named 'clicks': did you mean click\?"),
        ("unused", "clicks", r"rows.csv:1: 2 columns named 'clicks'"),
        (CSV, "", r"rows.csv:1: no column named 'time': valid choices: \(none\)"),
    ],
)
def test_data_errors_say_where(tmp_path: Path, old: str, new: str, match: str) -> None:
    assert CSV.count(old) >= 1
    with pytest.raises(DataError, match=match):
        run(tmp_path, CSV.replace(old, new, 1))
    assert os.listdir(tmp_path / "root") == []


def test_a_text_outside_the_vocabulary_lists_the_choices(tmp_path: Path) -> None:
    document = changed(country={"vocabulary": ["de", "fr"]})
    with pytest.raises(DataError, match=r"csv:3: column 'country': 'xx' is .*choices: de, fr"):
        run(tmp_path, document=document)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no gzip", "not utf-8"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.csv.gz"
    data = bytearray(gzip.compress(CSV.encode() * 50))
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[40:60] = bytes(20)
    elif damage == "not utf-8":
        data = bytearray(gzip.compress(CSV.replace("ann", "\xff").encode("latin-1")))
    path.write_bytes(b"time" if damage == "no gzip" else data)
    with pytest.raises(DataError, match=r"rows.csv.gz"):
        convert([path], parse_schema(DOCUMENT), tmp_path / "root")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("rows.json", "expected .csv"),
        ("rows", "expected .csv"),
        ("rows.parquet.gz", "expected .csv"),
        ("absent.csv", "cannot be read: No such file"),
    ],
)
def test_files_of_an_unknown_kind(tmp_path: Path, name: str, match: str) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_text("")
    with pytest.raises((ConfigError, DataError), match=f"{name}: {match}"):
        convert([tmp_path / name], parse_schema(DOCUMENT), tmp_path / "root")


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no files"):
        convert([], parse_schema(DOCUMENT), tmp_path)


@pytest.mark.parametrize(
    ("cell", "unit", "seconds"),
    [
        ("-1", "ms", -1),
        ("1.9", "s", 1),
        (1999, "ms", 1),
        (1999999, "us", 1),
        ("1999999999", "ns", 1),
        ("1970-01-01T00:00:01.5", "iso8601", 1),
        ("1970-01-01T02:00:01+02:00", "iso8601", 1),
        ("1970-01-02", "iso8601", 86400),
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "ns", 1),
        (datetime(1970, 1, 1, 0, 0, 1), "s", 1),
        (date(1970, 1, 2), "iso8601", 86400),
    ],
)
def test_times(cell: Any, unit: str, seconds: int) -> None:
    assert to_seconds(cell, unit) == seconds


@pytest.mark.parametrize(
    ("cell", "unit"), [("x", "s"), (None, "s"), (math.inf, "ms"), ("5", "iso8601"), ([1], "s")]
)
def test_no_times(cell: Any, unit: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        to_seconds(cell, unit)


TOML = """
[timestamp]
column = "time"
unit = "ms"
feature = "timestamp"
[columns.user]
feature = "user_id"
hash_buckets = 1_000
[columns.country]
vocabulary = ["de", "fr"]
unknown = 2
default = 3
[columns.genres]
separator = "|"
vocabulary = "build"
[columns.scores]
separator = " "
dtype = "float32"
[columns.price]
dtype = "float32"
default = 0
[columns.clicks]
"""


def test_schema_files(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(TOML)
    (tmp_path / "s.json").write_text(json.dumps(DOCUMENT))
    expected = parse_schema(DOCUMENT)
    assert load_schema(tmp_path / "s.toml") == load_schema(tmp_path / "s.json") == expected


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("s.yaml", b"", "ends in .toml or .json"),
        ("s.toml", b"[timestamp", r"s.toml: Expected ']'"),
        ("s.json", b"{", r"s.json: .*line 1"),
        ("s.json", b"\xff", r"s.json: .*can't decode"),
        ("s.json", b"[]", r"s.json: expected a table"),
        ("s.json", b'{"columns": {"x": {}}}', r"s.json: \[timestamp\] is missing"),
    ],
)
def test_damaged_schema_files(tmp_path: Path, name: str, data: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=match):
        load_schema(tmp_path / name)


def test_a_schema_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no.toml: cannot be read: No such file"):
        load_schema(tmp_path / "no.toml")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"timestamp": {}}, r"schema: timestamp.column is missing"),
        (
            {"timestamp": {"column": "t", "unit": "h"}},
            r"schema: timestamp: unknown unit 'h': .* ms",
        ),
        (
            {"timestamp": {"column": "t", "units": "s"}},
            r"timestamp: unknown key 'units': did.* unit",
        ),
        ({"timestamp": {"column": "t", "feature": "clicks"}}, r"two columns become .* 'clicks'"),
        ({"columns": {}}, r"schema: no \[columns.NAME\]"),
        ({"columns": []}, r"schema: columns: expected tables"),
        ({"user": []}, r"schema: columns.user: expected a table, got \[\]"),
        ({"user": {"dtpye": "int64"}}, r"columns.user: unknown key 'dtpye': did you mean dtype"),
        (
            {"user": {"dtype": "int32"}},
            r"columns.user: unknown dtype 'int32': valid choices: float",
        ),
        ({"user": {"hash_buckets": 0}}, r"columns.user: hash_buckets must be at least 1, got 0"),
        ({"user": {"hash_buckets": "9"}}, r"columns.user.hash_buckets: expected int, got '9'"),
        ({"user": {"hash_buckets": True}}, r"columns.user.hash_buckets: expected int, got True"),
        ({"user": {"hash_buckets": 1, "vocabulary": "build"}}, r"user: .* exclude each other"),
        ({"user": {"hash_buckets": 1, "dtype": "float32"}}, r"user: .* dtype must be int64"),
        ({"user": {"vocabulary": "built"}}, r'user.vocabulary: expected a list or "build"'),
        ({"user": {"vocabulary": [1]}}, r"user.vocabulary: expected a list of texts"),
        ({"user": {"vocabulary": ["a", "a"]}}, r"user: vocabulary lists a text twice"),
        ({"user": {"vocabulary": "build", "unknown": 1}}, r"user: unknown goes with a vocabulary"),
        ({"user": {"default": 0.5}}, r"user: default 0.5 is not of dtype int64"),
        ({"user": {"default": 2**63}}, r"user: default .* is not of dtype int64"),
        ({"user": {"separator": ""}}, r"user: separator must not be empty"),
        ({"user": {"feature": "clicks"}}, r"schema: two columns become the feature 'clicks'"),
        ({"csv": {"delimiter": "||"}}, r"schema: csv: delimiter must be one character"),
        ({"csv": {"encoding": "utf-9"}}, r"schema: csv: unknown encoding 'utf-9'"),
    ],
)
def test_schema_errors_name_the_key(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_schema(changed(**changes))
