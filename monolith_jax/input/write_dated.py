"""Records into dated folders: `ROOT/YYYYMMDD/HH/part-00000`, and the meta file that counts them.

The meta file has one line `path,count` per data file, in ascending order of paths, relative to its
own folder (Monolith's, read by `parse_example_number_meta_file`, are relative to the bucket). It is
read by `monolith_jax.input.files.read_meta`.
"""

import os
import secrets
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input.files import META_NAME, read_meta
from monolith_jax.input.write import atomic_file, frame


def write_meta(path: str | os.PathLike[str], counts: Iterable[tuple[str, int]]) -> None:
    """Writes a meta file: a line `path,count` per data file, in ascending order of paths.

    Args:
      path: the meta file, complete or absent.
      counts: path of a data file, relative to the meta file's folder, and its number of records.

    Raises:
      DataError: a path twice, a path with a comma or a line break, or a negative count.
    """
    lines, previous = [], None
    for name, count in sorted(counts):
        if name == previous:
            raise DataError(f"{path}: {name} is there twice")
        if not name or "," in name or "\n" in name or count < 0:
            raise DataError(f"{path}: {name!r} with count {count} cannot stand in a meta file")
        lines.append(f"{name},{count}\n")
        previous = name
    with atomic_file(path) as file:
        file.write("".join(lines).encode())


class DatedWriter:
    r"""Sorts records into `ROOT/YYYYMMDD/HH/part-NNNNN` by time (UTC), in bounded memory.

    Records may come in any order; within a file they keep the order in which they came. They are
    staged in a hidden folder of ROOT, and at the end of the `with` block the days move into place,
    each by one rename, and the meta file last: what `ROOT/meta.csv` lists is complete. If the block
    raises, ROOT is as before. A day that is already in ROOT is never touched: it is an error.

    Args:
      root: local folder, made if missing.
      buffer_bytes: records held in memory before they are appended to the staged files.
      records_per_file: a file that reaches this many records is followed by the next part.

    Example:
      >>> import tempfile, pathlib
      >>> root = pathlib.Path(tempfile.mkdtemp())
      >>> with DatedWriter(root) as writer:
      ...     writer.write(874724710, b"a record")
      >>> (root / "meta.csv").read_text()
      '19970920/03/part-00000,1\n'
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        buffer_bytes: int = 64 << 20,
        records_per_file: int = 1_000_000,
    ) -> None:
        if "://" in str(root):
            raise ConfigError(
                f"{root}: data is written to a local folder; copy it there afterwards"
            )
        self.root = Path(root)
        self.count = 0
        self._buffer_bytes, self._records_per_file = buffer_bytes, records_per_file
        self._staging = self.root / f".staging-{os.getpid()}-{secrets.token_hex(4)}"
        self._listed: dict[str, int] = {}
        self._buffers: dict[str, bytearray] = {}
        self._buffered = 0
        self._paths: dict[int, str] = {}  # hour since the epoch -> file being filled
        self._counts: dict[str, int] = {}  # file -> records, buffered ones included

    @property
    def days(self) -> int:
        """The number of days that records were written for."""
        return len({path[:8] for path in self._counts})

    def __enter__(self) -> Self:
        meta = self.root / META_NAME
        self._listed = read_meta(meta) if meta.exists() else {}
        self._make(self._staging)
        return self

    def write(self, timestamp: int, record: bytes) -> None:
        """Adds one record.

        Args:
          timestamp: seconds since 1970-01-01 UTC; decides on day and hour.
          record: the record's bytes, not framed.

        Raises:
          DataError: a time outside the years 1 to 9999, or a day that ROOT already has.
        """
        hour = timestamp // 3600
        path = self._paths.get(hour) or self._open(hour, 0)
        if self._counts[path] >= self._records_per_file:
            path = self._open(hour, int(path[-5:]) + 1)
        data = frame(record)
        self._buffers.setdefault(path, bytearray()).extend(data)
        self._counts[path] += 1
        self.count += 1
        self._buffered += len(data)
        if self._buffered >= self._buffer_bytes:
            self._flush()

    def _open(self, hour: int, part: int) -> str:
        try:
            time = datetime.fromtimestamp(hour * 3600, UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise DataError(
                f"timestamp {hour * 3600} s is no time between the years 1 and 9999: "
                "is its unit right?"
            ) from error
        # Not strftime: it leaves a year before 1000 unpadded.
        day = f"{time.year:04d}{time.month:02d}{time.day:02d}"
        if (self.root / day).exists():
            raise DataError(self._existing(day))
        path = f"{day}/{time.hour:02d}/part-{part:05d}"
        self._paths[hour] = path
        self._counts[path] = 0
        return path

    def _existing(self, day: str) -> str:
        if any(name.startswith(f"{day}/") for name in self._listed):
            return f"{self.root / day} is there already: remove the day or choose another root"
        return (
            f"{self.root / day} is there already, but {self.root / META_NAME} does not list it: it "
            "was left by a stopped run, or made otherwise; remove it or choose another root"
        )

    def _flush(self) -> None:
        """Appends every buffer to its staged file; files are opened one at a time."""
        for path, data in self._buffers.items():
            file = self._staging / path
            self._make(file.parent)
            try:
                with open(file, "ab") as out:
                    out.write(data)
            except OSError as error:
                raise DataError(f"{file}: cannot be written: {error.strerror}") from error
        self._buffers.clear()
        self._buffered = 0

    def _publish(self) -> None:
        self._flush()
        days = sorted({path[:8] for path in self._counts})
        for day in days:
            if (self.root / day).exists():
                raise DataError(self._existing(day))
        os.sync()  # Once for thousands of small files: an fsync of each costs seconds.
        for day in days:
            os.rename(self._staging / day, self.root / day)
        if days:
            write_meta(self.root / META_NAME, (self._listed | self._counts).items())

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be made: {error.strerror}") from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
