"""Ranges of dates on paths: which date a path has, and every kind of collection."""

import datetime
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monolith_jax import storage
from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input import Column, DataFile, Dataset
from monolith_jax.input.dates import date_of, filter_dates

RECORD = bytes.fromhex("0f000000000000006d532b090a0d0a0b0a02696412051a030a012ae7fb1693")

# (path below a root, its date)
DATED = [
    ("20200501/00/part-0", "20200501"),
    ("20200501/part", "20200501"),
    ("20200501", "20200501"),
    ("20200501.tfrecord", "20200501"),
    ("20200501-part-0", "20200501"),
    ("_SUCCESS", None),
    ("_temporary/20200501/part", None),
    ("tmp", None),
    ("202005011/part", None),
    ("2020050/part", None),
    ("20200501_backup/part", None),
    ("20201301/part", None),
    ("20200532/part", None),
    ("x20200501/part", None),
    ("part-0", None),
    ("٢٠٢٠٠٥٠١/part", None),
]


@pytest.mark.parametrize(("rest", "date"), DATED)
@pytest.mark.parametrize("root", ["gs://bucket/data", "gs://bucket/data/", "/tmp/a+b (1)", "dä/"])
def test_the_date_of_a_path(root: str, rest: str, date: str | None) -> None:
    path = root if root.endswith("/") else root + "/"
    assert date_of(path + rest, root) == date


def test_tensorflow_keeps_the_same_paths(tf: Any) -> None:
    """Our rule and the one in TensorFlow's operations agree on every case above."""
    for root in ("gs://bucket/data", "gs://bucket/data/", "/tmp/a+b (1)", "dä/"):
        paths = [(root if root.endswith("/") else root + "/") + rest for rest, _ in DATED]
        kept = filter_dates(tf.data.Dataset.from_tensor_slices(paths), root, "20200501", "20200501")
        got = [path.decode() for path in kept.as_numpy_iterator()]
        assert got == filter_dates(paths, root, "20200501", "20200501")
        assert len(got) == 5


def test_a_root_without_a_slash_and_folders_that_are_no_date() -> None:
    """The original reads the number from "/2020050" here, and dies on "_SUCCESS"."""
    paths = ["data/20200501/part", "data/20200502/part", "data/_SUCCESS"]
    assert filter_dates(paths, "data", "20200502", "20200502") == [paths[1]]
    assert filter_dates(paths, "data") == paths[:2]


def test_folders_named_key_equals_date() -> None:
    paths = ["data/date=20200501/part", "data/date=20200502/part"]
    assert filter_dates(paths, "data/date=", end="20200501") == paths[:1]


@pytest.mark.parametrize(
    "bound", ["20200502", "2020-05-02", 20200502, datetime.date(2020, 5, 2)], ids=repr
)
def test_bounds_in_all_forms(bound: Any) -> None:
    paths = [f"d/2020050{day}/part" for day in (1, 2, 3)]
    assert filter_dates(paths, "d", bound, bound) == [paths[1]]
    assert filter_dates(paths, "d", bound) == paths[1:]
    assert filter_dates(paths, "d", end=bound) == paths[:2]


@pytest.mark.parametrize("bound", ["2020", "yesterday", "20200501x", "", 5])
def test_bounds_that_are_no_dates(bound: Any) -> None:
    with pytest.raises(ConfigError, match=r"start_date .* is no date: wanted YYYYMMDD"):
        filter_dates([], "d", bound)
    with pytest.raises(ConfigError, match="end_date"):
        filter_dates([], "d", None, bound)


def test_a_range_that_ends_before_it_starts() -> None:
    with pytest.raises(ConfigError, match="20200502 is after end_date 20200501"):
        filter_dates([], "d", "20200502", "20200501")


@given(
    days=st.lists(st.dates(datetime.date(1999, 1, 1), datetime.date(2030, 1, 1)), max_size=20),
    bounds=st.tuples(st.dates(), st.dates()),
)
def test_what_is_kept_lies_in_the_range(
    days: list[datetime.date], bounds: tuple[datetime.date, datetime.date]
) -> None:
    start, end = (min(bounds), max(bounds))
    paths = [f"root/{day:%Y%m%d}/part-{i}" for i, day in enumerate(days)]
    wanted = [path for path, day in zip(paths, days, strict=True) if start <= day <= end]
    assert filter_dates(paths, "root", start, end) == wanted
    assert filter_dates(paths, "root", start.isoformat(), end.isoformat()) == wanted


def test_collections_keep_their_kind() -> None:
    paths = ("d/20200501/part", "d/20200502/part")
    assert filter_dates(paths, "d", "20200502") == paths[1:]
    assert filter_dates([p.encode() for p in paths], "d", "20200502") == [paths[1].encode()]
    assert filter_dates([Path(p) for p in paths], "d", "20200502") == [Path(paths[1])]
    files = [DataFile(p, datetime.date(2020, 5, 1), 3) for p in paths]
    assert filter_dates(files, Path("d"), "20200502") == files[1:]
    with pytest.raises(ConfigError, match="not one path"):
        filter_dates("d/20200501/part", "d")


def test_iterators_are_taken_one_at_a_time() -> None:
    """An endless stream is fine, and nothing is read before it is asked for."""
    taken = []

    def stream() -> Iterator[str]:
        for i in itertools.count():
            taken.append(i)
            yield f"d/2020050{1 + i % 2}/part-{i}"

    kept = filter_dates(stream(), "d", "20200502")
    assert taken == []
    assert list(itertools.islice(kept, 2)) == ["d/20200502/part-1", "d/20200502/part-3"]
    assert taken == [0, 1, 2, 3]


def test_a_path_outside_the_root_is_an_error(tf: Any) -> None:
    paths = ["gs://b/data/20200501/part", "gs://b/dta/20200501/part", "gs"]
    with pytest.raises(DataError, match="gs://b/dta/20200501/part does not lie below gs://b/data"):
        filter_dates(paths, "gs://b/data")
    dataset = filter_dates(tf.data.Dataset.from_tensor_slices(paths), "gs://b/data")
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not lie below gs://b/data"):
        list(dataset.as_numpy_iterator())


def test_tf_data_of_anything_but_strings_is_an_error(tf: Any) -> None:
    for dataset in (
        tf.data.Dataset.range(3),
        tf.data.Dataset.from_tensor_slices(["a", "b"]).batch(2),
    ):
        with pytest.raises(ConfigError, match="scalar strings"):
            filter_dates(dataset, "d")


def test_our_dataset_over_fewer_files(tmp_path: Path) -> None:
    paths = []
    for day in (1, 2, 3):
        paths.append(os.path.join(tmp_path, f"2020050{day}", "part-0"))
        storage.write_bytes(paths[-1], RECORD * day)
    schema = (Column("id", "int64"),)
    whole = Dataset(paths, schema, batch_size=2, seed=7, shuffle_window=4, threads=0)
    part = filter_dates(whole, tmp_path, "20200502")
    direct = Dataset(paths[1:], schema, batch_size=2, seed=7, shuffle_window=4, threads=0)
    assert isinstance(part, Dataset)
    assert part.num_examples == 5
    assert part.fingerprint() == direct.fingerprint()
    with pytest.raises(DataError, match="no files"):
        filter_dates(whole, tmp_path, "20200601")
