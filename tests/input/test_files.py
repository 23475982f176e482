import datetime
from pathlib import Path

import pytest

from monolith_jax.errors import DataError, UserError
from monolith_jax.input import DataFile, find_files, read_meta

DAY = datetime.date


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        "20260101/part-00000",
        "20260102/00/part-00001",
        "20260102/00/part-00000",
        "20260102/07/deep/part",
        "20260102/07/_SUCCESS",
        "20260105/part-00000",
        "20269999/part-00000",
        "other/part-00000",
        "part-00000",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(files: tuple[DataFile, ...]) -> list[str]:
    return [file.name for file in files]


def test_both_days_are_inclusive_and_files_ascend(root: Path) -> None:
    files = find_files(root, "20260101", "20260102")
    assert names(files) == [
        "20260101/part-00000",
        "20260102/00/part-00000",
        "20260102/00/part-00001",
        "20260102/07/deep/part",
    ]
    assert files[0] == DataFile(f"{root}/20260101/part-00000", DAY(2026, 1, 1), None)
    assert files == find_files(f"{root}/", DAY(2026, 1, 1), "2026-01-02")
    assert names(find_files(root, "20260103", "20260105")) == ["20260105/part-00000"]
    assert files == find_files(root, datetime.datetime(2026, 1, 1, 9), "20260104")
    assert len(find_files(root, "00010101", "99991231")) == 5  # all there is, at no cost


@pytest.mark.parametrize("date", ["20260230", "2026-1-1", "today", "202601011", "", "2026-0101"])
def test_what_is_no_date(root: Path, date: str) -> None:
    with pytest.raises(UserError, match=f"end_date '{date}' is no date"):
        find_files(root, "20260101", date)


def test_start_after_end(root: Path) -> None:
    with pytest.raises(UserError, match="start_date 2026-01-02 is after end_date 2026-01-01"):
        find_files(root, "20260102", "20260101")


def test_no_files_in_the_range_says_what_there_is(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_files(root, "20270101", "20270103")
    assert str(caught.value) == (
        f"no files {root}/YYYYMMDD/**/part* from 20270101 to 20270103: the days there are 20260101 "
        "to 20260105 (3 folders)"
    )
    with pytest.raises(UserError, match=f"{root}/none is no folder"):
        find_files(root / "none", "20270101", "20270103")
    with pytest.raises(UserError, match="there is no folder YYYYMMDD in"):
        find_files(root / "other", "20270101", "20270103")


def test_the_meta_file_gives_the_counts(root: Path) -> None:
    meta = root / "meta.csv"
    meta.write_text(
        f"{root}/20260101/part-00000,3\n20260102/00/part-00000,4\n20260109/part-00000,9\n"
    )
    counts = [f.num_records for f in find_files(root, "20260101", "20260102")]
    assert counts == [3, 4, None, None]
    with pytest.raises(
        DataError, match=f"{meta} lists {root}/20260109/part-00000, which is not there"
    ):
        find_files(root, "20260101", "20260109")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,1\nb\n", "line 2 is 'b', wanted path,count"),
        ("a,1\nb,x\n", "line 2 is 'b,x'"),
        ("a,-1\n", "line 1 is 'a,-1'"),
        (",1\n", "line 1 is ',1'"),
        ("b,1\na,1\n", "line 2 lists a after b: not ascending"),
        ("a,1\na,1\n", "line 2 lists a a second time"),
    ],
)
def test_what_is_no_meta_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "meta.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_meta(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_meta_with_another_separator_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "meta"
    path.write_text("a,b;1\n\n c ; 2 \n")
    assert read_meta(path, ";") == {"a,b": 1, "c": 2}
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is no text"):
        read_meta(path)
    with pytest.raises(DataError, match="No such file"):
        read_meta(tmp_path / "none")


def test_a_name_is_the_same_wherever_the_root_is() -> None:
    day = DAY(2026, 1, 1)
    assert DataFile("gs://b/x/20260101/07/part-0", day).name == "20260101/07/part-0"
    assert DataFile("/y/20260101/07/part-0", day).name == "20260101/07/part-0"
    assert DataFile("/y/part-0").name == "part-0"
