"""Meta files, and the training files held against them."""

from pathlib import Path

import pytest

from monolith_jax import storage
from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input.file_counts import parse_meta, training_file_examples


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("separator", "line", "expected"),
    [
        (",", "a/part,10", ("a/part", 10)),
        (",", " a/part , 10 ", ("a/part", 10)),
        (",", "a/part,10,checked", ("a/part", 10)),
        ("\t", "a,b\t10", ("a,b", 10)),
        ("::", "a:b::10", ("a:b", 10)),
        (" ", "a 10", ("a", 10)),
    ],
)
def test_lines(tmp_path: Path, separator: str, line: str, expected: tuple[str, int]) -> None:
    assert parse_meta(write(tmp_path / "meta", line), separator) == [expected]


def test_lines_without_the_separator_are_left_out_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meta = write(tmp_path / "meta", "made by us", "", "a,1", "b,2")
    assert parse_meta(meta) == [("a", 1), ("b", 2)]
    assert [record.getMessage() for record in caplog.records] == [
        f"{meta}, line 1 has no ',' and is left out"
    ]
    assert parse_meta(write(tmp_path / "empty")) == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["b,1", "a,2"], "line 2: a follows b"),
        (["a,1", "a,2"], "line 2: a follows a"),
        (["a,1", "b,x"], "line 2: 'x' is no number"),
        (["a,-1"], "line 1: '-1' is no number"),
        (["a,"], "line 1: '' is no number"),
        ([",1"], "line 1: the path is empty"),
        (["a\t1", "b\t2"], "no line has the separator ','"),
    ],
)
def test_damaged_files_name_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"meta.*{message}"):
        parse_meta(write(tmp_path / "meta", *lines))


def test_what_is_no_meta_file(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe,1")
    with pytest.raises(DataError, match="binary: is no text"):
        parse_meta(tmp_path / "binary")
    with pytest.raises(storage.NotFoundError, match="did you mean binary"):
        parse_meta(tmp_path / "binry")
    with pytest.raises(ConfigError, match="separator is empty"):
        parse_meta(write(tmp_path / "meta", "a,1"), "")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Files of three days; the meta file beside them knows a day before and one after."""
    for day in (2, 3, 4):
        storage.write_bytes(tmp_path / f"data/2020050{day}/part-0", b"")
    write(tmp_path / "meta", *[f"data/2020050{day}/part-0,{day}0" for day in range(1, 6)])
    return tmp_path


def test_counts_by_pattern_folder_and_file(data: Path) -> None:
    meta = data / "meta"
    assert training_file_examples(f"{data}/data/*/part*", meta) == [20, 30, 40]
    assert training_file_examples(data / "data", meta) == [20, 30, 40]
    assert training_file_examples(f"{data}/data/20200503/part-0", meta) == [30]
    assert training_file_examples(f"{data}/data/2020050[23]/*", meta) == [20, 30]


def test_absolute_paths_and_another_separator(data: Path) -> None:
    meta = write(data / "abs", *[f"{data}/data/2020050{day}/part-0;{day}" for day in (2, 3, 4)])
    assert training_file_examples(data / "data", meta, ";") == [2, 3, 4]


def test_files_that_are_no_unbroken_run_of_the_meta_file(data: Path) -> None:
    meta = data / "meta"
    with pytest.raises(DataError, match="no files match"):
        training_file_examples(f"{data}/data/2021*/part*", meta)
    storage.write_bytes(data / "data/20200504/part-00", b"")
    with pytest.raises(DataError, match=r"part-00 is not in .*meta; did you mean .*part-0"):
        training_file_examples(data / "data", meta)
    storage.delete(data / "data/20200504/part-00")
    storage.delete(data / "data/20200503/part-0")
    with pytest.raises(DataError, match=r"lists .*20200503/part-0 before .*20200504/part-0"):
        training_file_examples(data / "data", meta)
