"""Which files hold the examples of a range of dates."""

import datetime
from dataclasses import dataclass


@dataclass(frozen=True)
class DataFile:
    """One file of the data: path, the date of its folder, and its number of records if known."""

    path: str
    date: datetime.date
    num_records: int | None = None


def find_files(
    root: str, start_date: str | datetime.date, end_date: str | datetime.date
) -> tuple[DataFile, ...]:
    """Returns the files root/YYYYMMDD/**/part* of the dates start..end, inclusive, ascending."""
    raise NotImplementedError


def read_meta(path: str, separator: str = ",") -> dict[str, int]:
    """Reads a meta file of `path,count` lines."""
    raise NotImplementedError
