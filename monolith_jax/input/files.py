"""Which files hold the examples of a range of dates.

The layout is Monolith's: `root/YYYYMMDD/.../part*`, a folder per day, any depth below it, and a
meta file of `path,count` lines (Monolith: core/util.py, `range_dateset` and
`parse_example_number_meta_file`).
"""

import datetime
import os
import re
from dataclasses import dataclass

from monolith_jax.errors import ConfigError, DataError

META_NAME = "meta.csv"
"""The name of the meta file, in the root."""

_DAY = re.compile(r"\d{8}")


@dataclass(frozen=True)
class DataFile:
    """One file of examples.

    Attributes:
      path: local or gs://.
      date: the day of its folder, or None if it is in none.
      num_records: how many records it holds, or None if that is not known yet.
    """

    path: str
    date: datetime.date | None = None
    num_records: int | None = None

    @property
    def name(self) -> str:
        """The path from the day's folder on, `YYYYMMDD/...`, the same wherever the root is."""
        parts, day = self.path.split("/"), f"{self.date:%Y%m%d}" if self.date else ""
        return "/".join(parts[parts.index(day) :]) if day and day in parts else parts[-1]


def find_files(
    root: str | os.PathLike[str],
    start_date: str | datetime.date,
    end_date: str | datetime.date,
) -> tuple[DataFile, ...]:
    """Returns the files `root/YYYYMMDD/**/part*` of the days from start to end, in ascending order.

    Numbers of records come from `root/meta.csv` if there is one; a file that it does not list, and
    all files if there is none, have None, and `Dataset` counts them.

    Args:
      root: the folder of the days, local or gs://.
      start_date: the first day, inclusive: a date, "YYYYMMDD" or "YYYY-MM-DD".
      end_date: the last day, inclusive.

    Raises:
      ConfigError: a date that is none, or a start after the end.
      DataError: no such root, no files in the range (the message says what was searched and which
        days exist), or a meta file that lists a file of the range that is not there.

    Example:
      >>> import pathlib, tempfile
      >>> root = pathlib.Path(tempfile.mkdtemp())
      >>> for day in ("20260101", "20260102", "20260103"):
      ...     (root / day / "07").mkdir(parents=True)
      ...     _ = (root / day / "07" / "part-0").write_bytes(b"")
      >>> [file.name for file in find_files(root, "2026-01-02", "2026-01-03")]
      ['20260102/07/part-0', '20260103/07/part-0']
    """
    start, end = _date(start_date, "start_date"), _date(end_date, "end_date")
    if start > end:
        raise ConfigError(f"start_date {start} is after end_date {end}")
    base = os.fspath(root).rstrip("/") or "/"
    days = _days(base)
    found = {
        path: day
        for name, day in days.items()
        if start <= day <= end
        for path in _parts(f"{base}/{name}")
    }
    if not found:
        raise DataError(_nothing(base, start, end, list(days)))
    meta = _meta(base)
    absent = [
        path
        for path in meta
        if path not in found and (day := _day_of(path, base)) and start <= day <= end
    ]
    if absent:
        raise DataError(
            f"{base}/{META_NAME} lists {absent[0]}, which is not there"
            + (f" (and {len(absent) - 1} more)" if len(absent) > 1 else "")
        )
    return tuple(DataFile(path, found[path], meta.get(path)) for path in sorted(found))


def read_meta(path: str | os.PathLike[str], separator: str = ",") -> dict[str, int]:
    r"""Reads a meta file: lines of `path,count`, the paths ascending and each once.

    Args:
      path: the meta file, local or gs://.
      separator: between path and count; a path may contain it, the last one counts.

    Returns:
      The number of records by path, as the paths are written (relative to the root, or absolute).

    Raises:
      DataError: a file that cannot be read, or a line that is no `path,count`, or is out of order;
        the message names the file and the line.

    Example:
      >>> import pathlib, tempfile
      >>> meta = pathlib.Path(tempfile.mkdtemp()) / "meta.csv"
      >>> _ = meta.write_text("20260101/part-0,10\n20260101/part-1,12\n")
      >>> read_meta(meta)
      {'20260101/part-0': 10, '20260101/part-1': 12}
    """
    name, counts, last = os.fspath(path), dict[str, int](), ""
    for number, line in enumerate(_read_text(name).splitlines(), start=1):
        if not line.strip():
            continue
        file, found, count = line.rpartition(separator)
        file, count = file.strip(), count.strip()
        if not found or not file or not count.isascii() or not count.isdigit():
            raise DataError(f"{name}: line {number} is {line!r}, wanted path{separator}count")
        if file in counts:
            raise DataError(f"{name}: line {number} lists {file} a second time")
        if file < last:
            raise DataError(f"{name}: line {number} lists {file} after {last}: not ascending")
        counts[file], last = int(count), file
    return counts


def _date(value: str | datetime.date, name: str) -> datetime.date:
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    if re.fullmatch(r"\d{4}-\d\d-\d\d|\d{8}", value, re.ASCII):
        try:
            return datetime.date.fromisoformat(value)
        except ValueError as error:
            raise ConfigError(f"{name} {value!r} is no date: {error}") from error
    raise ConfigError(f"{name} {value!r} is no date: wanted YYYYMMDD")


def _days(base: str) -> dict[str, datetime.date]:
    """The folders of days in the root, by name, ascending; none if there is no such root."""
    if base.startswith("gs://"):
        from monolith_jax import storage

        try:
            names = storage.list_folders(base)
        except storage.NotFoundError:
            names = []
    else:
        names = os.listdir(base) if os.path.isdir(base) else []
    days = {name: _day_of(name, base) for name in sorted(names)}
    return {name: day for name, day in days.items() if day is not None}


def _parts(folder: str) -> list[str]:
    """The files part* at any depth below `folder`."""
    if folder.startswith("gs://"):
        from monolith_jax import storage

        paths = [info.path for info in storage.list_prefix(folder + "/")]
    else:
        paths = [f"{directory}/{name}" for directory, _, names in os.walk(folder) for name in names]
    return [path for path in paths if path.rpartition("/")[2].startswith("part")]


def _meta(base: str) -> dict[str, int]:
    """The counts of the root's meta file by full path; empty if there is none."""
    path = f"{base}/{META_NAME}"
    if path.startswith("gs://"):
        from monolith_jax import storage

        present = storage.exists(path)
    else:
        present = os.path.exists(path)
    if not present:
        return {}
    counts = read_meta(path)
    return {
        name if name.startswith(("/", "gs://")) else f"{base}/{name}": count
        for name, count in counts.items()
    }


def _read_text(path: str) -> str:
    try:
        if path.startswith("gs://"):
            from monolith_jax import storage

            return bytes(storage.read_bytes(path)).decode()
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text: {error}") from error


def _day_of(path: str, base: str) -> datetime.date | None:
    """The day of a path below the root, or None."""
    name = path.removeprefix(f"{base}/").partition("/")[0]
    try:
        return datetime.date.fromisoformat(name) if _DAY.fullmatch(name) else None
    except ValueError:
        return None


def _nothing(base: str, start: datetime.date, end: datetime.date, days: list[str]) -> str:
    """The message when no file was found: what was searched, and what there is instead."""
    searched = f"no files {base}/YYYYMMDD/**/part* from {start:%Y%m%d} to {end:%Y%m%d}"
    if days:
        return f"{searched}: the days there are {days[0]} to {days[-1]} ({len(days)} folders)"
    if not base.startswith("gs://") and not os.path.isdir(base):
        return f"{searched}: {base} is no folder"
    return f"{searched}: there is no folder YYYYMMDD in {base}"
