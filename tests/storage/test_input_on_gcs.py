"""The input room over gs://: the same files, counts and batches as from a local folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monolith_jax import storage
from monolith_jax.errors import DataError
from monolith_jax.input import Column, Dataset, find_files
from monolith_jax.input.write import encode_example, write_tfrecord

pytestmark = pytest.mark.usefixtures("quick_retries")
SCHEMA = (Column("user", "int64"),)


def upload_days(gcs: Any, tmp_path: Path, *days: str) -> None:
    for day in days:
        write_tfrecord(tmp_path / day, [encode_example({"user": int(day) + i}) for i in range(5)])
        storage.upload(str(tmp_path / day), gcs / f"data/{day}/00/part-0")


def test_a_range_with_days_that_are_not_there(gcs: Any, tmp_path: Path) -> None:
    upload_days(gcs, tmp_path, "20240101", "20240104")
    files = find_files(gcs / "data", "20240101", "20240105")
    assert [file.path for file in files] == [
        gcs / "data/20240101/00/part-0",
        gcs / "data/20240104/00/part-0",
    ]
    batch = Dataset(files, SCHEMA, batch_size=10).batch(0)
    want = [20240101 + i for i in range(5)] + [20240104 + i for i in range(5)]
    np.testing.assert_array_equal(batch.columns["user"], want)


def test_no_files_says_which_days_there_are(gcs: Any, tmp_path: Path) -> None:
    upload_days(gcs, tmp_path, "20240101")
    with pytest.raises(DataError, match="from 20230101 to 20230102: the days there are 20240101"):
        find_files(gcs / "data", "20230101", "20230102")


def test_counts_come_from_the_meta_file(gcs: Any, tmp_path: Path) -> None:
    upload_days(gcs, tmp_path, "20240101")
    storage.write_bytes(gcs / "data/meta.csv", b"20240101/00/part-0,5\n")
    (file,) = find_files(gcs / "data", "20240101", "20240101")
    assert file.num_records == 5
