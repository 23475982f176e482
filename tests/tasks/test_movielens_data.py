import csv
import hashlib
import io
import json
import os
import random
import stat
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input.write import encode_example
from monolith_jax.tasks import movielens_data as data
from monolith_jax.tasks import movielens_source as source

RECBOLE = "recbole/dataset_example/ml-100k/ml-100k"
USERS = [
    (1, 24, "M", "technician", "85711"),
    (2, 53, "F", "other", "94043"),
    (3, 7, "F", "none", "T8H1N"),
]
# Title as GroupLens has it, its title and year as RecBole cut them, and the genres.
ITEMS = [
    ("Toy Story (1995)", "Toy Story", "1995", ["Comedy", "Animation", "Children's"]),
    ("Land Before Time III (1995) (V)", "Land Before Time III (1995)", "V", ["Children's"]),
    ("unknown", "unkonwn", "unkonwn", ["unknown"]),
    ("Seven (Se7en) (1995)", "Seven (Se7en)", "1995", ["Thriller", "Crime"]),
    ("C'est arriv\u00e9 (1992)", "C'est arriv\u00e9", "1992", ["Drama", "Comedy", "Crime"]),
]
YEARS = [1995, 1995, 0, 1995, 1992]


def ratings() -> list[tuple[int, int, int, int]]:
    rng = random.Random(0)
    rows = []
    for user in (1, 2, 3):
        for item in range(1, 6):
            time = rng.randrange(874724710, 874999999)
            rows.append((user, item, rng.randint(1, 5), time))
    rng.shuffle(rows)
    return rows


def table(rows: list[tuple[Any, ...]], separator: str) -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def official_members() -> dict[str, bytes]:
    items = []
    for number, (title, _, _, genres) in enumerate(ITEMS, 1):
        flags = [int(name in genres) for name in source.GENRES]
        items.append((number, title, "01-Jan-1995", "", "http://x/?a(1901)", *flags))
    return {
        "ml-100k/u.data": table(ratings(), "\t").encode(),
        "ml-100k/u.user": table(USERS, "|").encode(),
        "ml-100k/u.item": table(items, "|").encode("latin-1"),
        "ml-100k/README": b"terms",
    }


def wheel_members() -> dict[str, bytes]:
    items = [(n, t, y, " ".join(g)) for n, (_, t, y, g) in enumerate(ITEMS, 1)]
    head = {
        ".inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n",
        ".user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n",
        ".item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n",
    }
    rows = {".inter": list(reversed(ratings())), ".user": USERS, ".item": items}
    return {RECBOLE + end: (head[end] + table(rows[end], "\t")).encode() for end in head}


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def expected() -> list[dict[str, Any]]:
    """The features of every record, in order, worked out from the rows above."""
    rows = []
    for user, item, rating, time in sorted(ratings(), key=lambda row: (row[3], row[0], row[1])):
        _, age, gender, occupation, _ = USERS[user - 1]
        rows.append(
            {
                "user_id": [user],
                "item_id": [item],
                "age": [age],
                "gender": ["FM".index(gender)],
                "occupation": [{"technician": 19, "other": 13, "none": 12}[occupation]],
                "genres": sorted(source.GENRES.index(name) for name in ITEMS[item - 1][3]),
                "release_year": [YEARS[item - 1]],
                "rating": [float(rating)],
                "timestamp": [time],
            }
        )
    return rows


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", fail)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The synthetic data set's hash stands in for the real one's."""
    content = b"".join(encode_example(row) for row in expected())
    monkeypatch.setattr(data, "CONTENT_SHA256", hashlib.sha256(content).hexdigest())


@pytest.fixture
def official(tmp_path: Path, small: None) -> Path:
    return write_zip(tmp_path / "ml-100k.zip", official_members())


@pytest.fixture
def wheel(tmp_path: Path, small: None) -> Path:
    return write_zip(tmp_path / "recbole-1.2.1-py3-none-any.whl", wheel_members())


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_records_and_folders(tf: Any, tmp_path: Path, official: Path) -> None:
    root = data.prepare(tmp_path / "root", official)
    assert root == tmp_path / "root"
    paths = sorted(root.glob("*/*/part-*"))
    found = []
    for path in paths:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            assert set(features) == set(data.FEATURES)
            kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
            floats = [name for name, kind in kinds.items() if kind == "float_list"]
            assert floats == ["rating"]
            found.append({n: list(getattr(f, kinds[n]).value) for n, f in features.items()})
            hour = datetime.fromtimestamp(found[-1]["timestamp"][0], UTC).strftime("%Y%m%d/%H")
            assert path.parent == root / hour
    assert found == expected()
    meta = [line.split(",") for line in (root / "meta.csv").read_text().splitlines()]
    assert [root / name for name, _ in meta] == paths
    assert sum(int(count) for _, count in meta) == len(found)
    codes = json.loads((root / "vocabulary.json").read_text())
    assert codes["gender"] == ["F", "M"]
    assert codes["occupation"][19] == "technician"
    assert [codes["genres"][i] for i in (0, 3, 18)] == ["unknown", "Animation", "Western"]
    assert "not to be redistributed" in json.loads((root / data.MARKER).read_text())["terms"]


def test_both_sources_give_the_same_files(tmp_path: Path, official: Path, wheel: Path) -> None:
    one = data.prepare(tmp_path / "one", official)
    two = data.prepare(tmp_path / "two", wheel)
    assert files_of(one) == files_of(two)
    assert len(files_of(one)) > 5


def test_a_second_call_does_nothing(tmp_path: Path, official: Path) -> None:
    root = data.prepare(tmp_path / "root", official)
    before = {name: os.stat(root / name).st_mtime_ns for name in files_of(root)}
    official.unlink()
    assert data.prepare(tmp_path / "root", official) == root
    assert data.prepare(tmp_path / "root") == root
    assert {name: os.stat(root / name).st_mtime_ns for name in files_of(root)} == before


def test_an_empty_folder_is_filled_and_a_full_one_kept(tmp_path: Path, official: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert (data.prepare(root, official) / data.MARKER).exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    for target in (other, other / "thesis.txt"):
        with pytest.raises(DataError, match=r"exists and is not MovieLens-100K"):
            data.prepare(target, official)
    assert files_of(other) == {"thesis.txt": b"precious"}


def test_another_format_is_not_taken_for_this_one(tmp_path: Path, official: Path) -> None:
    root = data.prepare(tmp_path / "root", official)
    (root / data.MARKER).write_text('{"format": 0}')
    with pytest.raises(DataError, match="as written by this version"):
        data.prepare(root, official)


def test_a_run_that_fails_leaves_nothing(
    tmp_path: Path, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(data, "_write_json", fail)
    with pytest.raises(ZeroDivisionError):
        data.prepare(tmp_path / "deep" / "root", official)
    assert os.listdir(tmp_path / "deep") == []


def test_two_at_once(tmp_path: Path, official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move = data._move

    def late(staged: Path, target: Path) -> None:
        monkeypatch.setattr(data, "_move", move)
        data.prepare(target, official)  # the other process, which is first
        move(staged, target)

    monkeypatch.setattr(data, "_move", late)
    root = data.prepare(tmp_path / "root", official)
    assert (root / data.MARKER).exists()
    assert sorted(os.listdir(tmp_path)) == ["ml-100k.zip", "root"]


def test_default_root(tmp_path: Path, official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected_root = tmp_path / "cache" / "monolith_jax" / "movielens"
    assert data.prepare(from_file=official) == expected_root
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert data.default_root() == Path.home() / ".cache" / "monolith_jax" / "movielens"


def test_remote_root(official: Path) -> None:
    with pytest.raises(ConfigError, match="gs://bucket/ml: data is written to a local folder"):
        data.prepare("gs://bucket/ml", official)


def test_sizes_hold_every_code() -> None:
    assert set(data.VOCABULARY_SIZES) < set(data.FEATURES)
    assert len(source.OCCUPATIONS) == len(set(source.OCCUPATIONS)) == 21
    assert len(source.GENRES) == len(set(source.GENRES)) == 19


class Response(io.BytesIO):
    """What urlopen gives, for a download that works."""


def pip(content: Path | None, stderr: str = "") -> Callable[..., Any]:
    """A `subprocess.run` that copies `content` to where pip is told to, or fails."""

    def run(command: list[str], **kwargs: Any) -> Any:
        assert command[1:4] == ["-m", "pip", "download"]
        assert command[-1] == "recbole==1.2.1"
        assert "--no-deps" in command
        if content is not None:
            target = Path(command[command.index("--dest") + 1]) / "recbole-1.2.1-py3-none-any.whl"
            target.write_bytes(content.read_bytes())
        return subprocess.CompletedProcess(command, int(content is None), "", stderr)

    return run


def test_the_official_archive_comes_first(
    tmp_path: Path, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = []

    def urlopen(url: str, timeout: float) -> Response:
        urls.append((url, timeout <= 10))
        return Response(official.read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(subprocess, "run", pip(None, "must not be asked"))
    lines: list[str] = []
    root = data.prepare(tmp_path / "root", progress=lines.append)
    assert (root / data.MARKER).exists()
    assert urls == [(source.OFFICIAL_URL, True)]
    assert "fetching" in lines[0]
    assert "not to be redistributed" in lines[-1]


@pytest.mark.parametrize("answer", [None, b"<html>log in</html>", b""])
def test_the_wheel_comes_second(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    if answer is not None:  # else no network at all
        monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Response(answer))
    monkeypatch.setattr(subprocess, "run", pip(wheel))
    monkeypatch.setattr(source, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    root = data.prepare(tmp_path / "root")
    assert (root / data.MARKER).exists()
    assert sorted(os.listdir(tmp_path)) == [wheel.name, "root"]


def test_a_wheel_with_another_hash_is_refused(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", pip(wheel))
    with pytest.raises(DataError, match=r"recbole.*whl: its sha256 is .*, expected 9c994820"):
        data.prepare(tmp_path / "root")
    assert os.listdir(tmp_path) == [wheel.name]


def test_no_source_at_all(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip(None, "first\nERROR: No matching distribution"))
    with pytest.raises(DataError) as error:
        data.prepare(tmp_path / "root")
    for text in ("no network in tests", "ERROR: No matching distribution", "--from FILE"):
        assert text in str(error.value)
    assert "first" not in str(error.value)


def test_a_slow_download_and_a_slow_pip_are_given_up(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Response):
        def read(self, size: int | None = -1) -> bytes:
            return b"drop"

    def run(command: list[str], **kwargs: Any) -> Any:
        raise subprocess.TimeoutExpired(command, kwargs["timeout"])

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Slow())
    monkeypatch.setattr(source, "_DOWNLOAD_S", -1.0)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match=r"too slow.*no answer within 120 s"):
        data.prepare(tmp_path / "root")


def changed(members: dict[str, bytes], name: str, old: str, new: str) -> dict[str, bytes]:
    before = members[name].decode("latin-1")
    assert old in before
    return members | {name: before.replace(old, new, 1).encode("latin-1")}


@pytest.mark.parametrize(
    ("name", "old", "new", "match"),
    [
        ("u.user", "technician", "wizard", r"u.user:1: unknown occupation 'wizard': .* writer"),
        ("u.user", "|M|", "|X|", r"u.user:1: unknown gender 'X': valid choices: F, M"),
        ("u.user", "2|53|", "2|", r"u.user:2: expected 5 cells, found 4"),
        ("u.user", "2|53|", "2|old|", r"u.user:2: 'old' is not a non-negative integer"),
        ("u.item", "1|Toy", "one|Toy", r"u.item:1: 'one' is not a non-negative"),
        ("u.item", "|0", "", r"u.item:1: expected 24 cells, found 23"),
        ("u.data", "\t", " ", r"u.data:1: expected 4 cells, found 3"),
        ("u.user", "3|7", "4|7", r"Rating\(user=3.*names a user or an item that is not there"),
        ("u.user", "|24|", "|25|", r"not MovieLens-100K as published: 15 ratings"),
    ],
)
def test_damaged_members_are_named(
    tmp_path: Path, small: None, name: str, old: str, new: str, match: str
) -> None:
    members = changed(official_members(), f"ml-100k/{name}", old, new)
    path = write_zip(tmp_path / "ml-100k.zip", members)
    with pytest.raises(DataError, match=rf"ml-100k.zip: .*{match}"):
        data.prepare(tmp_path / "root", path)
    assert os.listdir(tmp_path) == ["ml-100k.zip"]


def test_a_damaged_wheel_is_named(tmp_path: Path, small: None) -> None:
    members = changed(wheel_members(), RECBOLE + ".item", "Thriller", "Thrill")
    path = write_zip(tmp_path / "recbole.whl", members)
    with pytest.raises(DataError, match=r"ml-100k.item:5: unknown genre 'Thrill': .*Western"):
        data.prepare(tmp_path / "root", path)


@pytest.mark.parametrize("kind", ["absent", "text", "truncated", "flipped", "other zip", "huge"])
def test_files_that_are_no_archive(
    tmp_path: Path, official: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(official.read_bytes())
    path = tmp_path / "given.zip"
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        content[60:70] = bytes(10)
        path.write_bytes(content)
    elif kind == "text":
        path.write_text("not a zip")
    elif kind == "other zip":
        write_zip(path, {"u.data": b"", "../ml-100k/u.data": b""})
    elif kind == "huge":
        path.write_bytes(content)
        monkeypatch.setattr(source, "_MAX_BYTES", 10)
    with pytest.raises(DataError, match=r"given.zip: "):
        data.prepare(tmp_path / "root", path)
    assert not (tmp_path / "root").exists()


def test_hostile_members_touch_nothing(tmp_path: Path, small: None) -> None:
    hostile = {"../evil": b"x", "/tmp/../evil": b"x", "ml-100k/../../evil": b"x"}
    inner = tmp_path / "inner"
    inner.mkdir()
    path = inner / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (official_members() | hostile).items():
            archive.writestr(name, content)
        link = zipfile.ZipInfo("ml-100k/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "../../evil")
    data.prepare(inner / "root", path)
    assert sorted(os.listdir(inner)) == ["ml-100k.zip", "root"]
    assert os.listdir(tmp_path) == ["inner"]


def test_the_real_wheel(tf: Any, tmp_path: Path) -> None:
    try:
        path = source._wheel(tmp_path)
    except DataError as error:
        pytest.skip(f"the wheel cannot be had: {error}")
    root = data.prepare(tmp_path / "root", path)
    with open(root / "meta.csv", newline="") as file:
        meta = [(name, int(count)) for name, count in csv.reader(file)]
    assert sum(count for _, count in meta) == 100_000
    assert (meta[0][0][:8], meta[-1][0][:8]) == (data.FIRST_DAY, data.LAST_DAY)
    largest = dict.fromkeys(data.VOCABULARY_SIZES, 0)
    genres = 0
    for name, _ in meta[:: len(meta) // 50]:
        for record in tf.data.TFRecordDataset(str(root / name)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            for key in largest:
                largest[key] = max(largest[key], *features[key].int64_list.value, 0)
            genres = max(genres, len(features["genres"].int64_list.value))
    assert all(largest[key] < size for key, size in data.VOCABULARY_SIZES.items())
    assert 3 <= genres <= data.MAX_GENRES


def test_no_data_in_the_import() -> None:
    code = (
        "import sys; import monolith_jax.tasks.movielens_data; "
        "assert not {'tensorflow', 'pyarrow', 'pip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
