"""Criteo's click logs as dated TFRecords: `ROOT/YYYYMMDD/HH/part-*`.

    monolith-jax data criteo day_0.gz day_1.gz --root DIR                 ids by hashing
    monolith-jax data criteo train.txt --days 7 --min-count 10 --root DIR ids by a vocabulary

A record has:

    label      float32  0 or 1
    I1 .. I13  float32  log(1 + max(x, 0)); 0 where missing
    C1 .. C26  int64    0 where missing; see `criteo_ids`

The logs tell no time, so days are given to them: the file `day_N` (also with `.gz`) is day N after
the first, other files are days in the order given, and with `--days` one file is cut into days of
equal size. Within a day, the place in the file decides on the hour, so that the order of the lines
stays. The first day, 2000-01-01 by default, is a name and no date of Criteo's.

Beside the days lie `meta.csv`, `criteo.json` (how ids are made) and, with a vocabulary,
`vocabulary.json`. More days may be added later: they take the ids that are there already.
"""

import datetime
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input.convert_tables import size
from monolith_jax.input.files import META_NAME
from monolith_jax.input.write import atomic_file, encode_example
from monolith_jax.input.write_dated import DatedWriter
from monolith_jax.tasks.criteo_ids import Hashing, Ids, Vocabulary
from monolith_jax.tasks.criteo_tsv import CATEGORIES, LABEL, NUMBERS, Line, lines

BUCKETS = 100_000
"""Ids of each category when hashed, the one of missing ones included."""
FIRST_DAY = "20000101"
MARKER, VOCABULARY = "criteo.json", "vocabulary.json"
_DAY_SECONDS = 86_400
_LAST = (datetime.date.max - datetime.date(1970, 1, 1)).days
_EVERY = 10_000  # lines between two calls of `progress`

Progress = Callable[[str, float, int], None]
"""Called now and then with what is being done, the fraction done, and the lines."""


class Converted(NamedTuple):
    """What `convert` wrote: records, days (YYYYMMDD), and the rows that each table needs."""

    records: int
    days: tuple[str, ...]
    sizes: dict[str, int]


class _Part(NamedTuple):
    """A file, its size in bytes, and the days (since 1970) that its lines are spread over."""

    path: Path
    bytes: int
    first: int
    days: int

    def seconds(self, position: int) -> int:
        """Returns the time of the line that starts at `position`, seconds since 1970 UTC."""
        spread = position * self.days * _DAY_SECONDS // max(1, self.bytes)
        return self.first * _DAY_SECONDS + min(spread, self.days * _DAY_SECONDS - 1)


def convert(
    files: Sequence[str | os.PathLike[str]],
    root: str | os.PathLike[str],
    *,
    buckets: int = BUCKETS,
    min_count: int | None = None,
    first_day: str = FIRST_DAY,
    days: int = 1,
    progress: Progress | None = None,
) -> Converted:
    """Writes Criteo's files below `root`; all of them or nothing.

    Args:
      files: in the order of time; see the module for the days that they become.
      root: local folder. Days that it already holds are an error, others are added.
      buckets: ids of a category when hashed.
      min_count: makes a vocabulary of the values that appear at least so often, in a first pass;
        None: ids by hashing.
      first_day: YYYYMMDD.
      days: days that one file is cut into.
      progress: called every 10,000 lines.

    Returns:
      What was written.

    Raises:
      DataError: a damaged line (names file, line, column, cell), a day that is there already, or a
        root whose ids were made otherwise.
      ConfigError: no files, or numbers that make no sense.
    """
    parts = _parts(files, first_day, days)
    folder = Path(root)
    settings = _settings(buckets, min_count)
    stored = _stored(folder, settings)
    watch = _Watch(parts, progress, passes=2 if min_count and not stored else 1)
    try:
        with DatedWriter(root) as writer:
            ids = _ids(folder, stored, buckets, min_count, watch)
            for part, line in watch.lines("writing"):
                writer.write(part.seconds(line.position), encode_example(_features(line, ids)))
            if not writer.count:
                raise DataError(f"no lines in {', '.join(str(part.path) for part in parts)}")
            with atomic_file(folder / MARKER) as file:
                file.write(json.dumps(settings, indent=1).encode() + b"\n")
    except BaseException:
        if not stored:
            for name in (MARKER, VOCABULARY):
                (folder / name).unlink(missing_ok=True)
        raise
    numbers = sorted({part.first + i for part in parts for i in range(part.days)})
    return Converted(writer.count, tuple(map(_name, numbers)), ids.sizes())


def _features(line: Line, ids: Ids) -> dict[str, Any]:
    features: dict[str, Any] = {LABEL: float(line.label)}
    for name, number in zip(NUMBERS, line.numbers, strict=True):
        features[name] = math.log1p(number) if number is not None and number > 0 else 0.0
    features.update(zip(CATEGORIES, ids(line.categories), strict=True))
    return features


class _Watch:
    """Goes through the files, perhaps twice, and says how far it is."""

    def __init__(self, parts: list[_Part], progress: Progress | None, passes: int) -> None:
        self._parts, self._progress = parts, progress
        self._total = passes * sum(part.bytes for part in parts) or 1
        self._done, self._count = 0, 0

    def lines(self, what: str) -> Iterator[tuple[_Part, Line]]:
        """Yields every line of every file, with its file."""
        for part in self._parts:
            for line in lines(part.path):
                yield part, line
                self._count += 1
                if self._count % _EVERY == 0:
                    self._say(f"{what} {part.path}", line.position)
            self._done += part.bytes
            self._say(f"{what} {part.path}", 0)

    def _say(self, what: str, position: int) -> None:
        if self._progress is not None:
            self._progress(what, (self._done + position) / self._total, self._count)


def _parts(files: Sequence[str | os.PathLike[str]], first_day: str, days: int) -> list[_Part]:
    if not files:
        raise ConfigError("no files to convert")
    if days < 1 or (days > 1 and len(files) > 1):
        raise ConfigError(f"days {days}: at least 1, and more than 1 for a single file only")
    start = _number(first_day)
    parts = []
    for i, file in enumerate(files):
        path = Path(file)
        named = re.fullmatch(r"day_([0-9]{1,4})(?:\.gz)?", path.name)
        day = start + (int(named[1]) if named else i)
        if day + days > _LAST:
            raise ConfigError(f"{path}: its last day would be after the year 9999")
        parts.append(_Part(path, size(path), day, days))
    seen: dict[int, Path] = {}
    for part in parts:
        if seen.setdefault(part.first, part.path) is not part.path:
            raise ConfigError(
                f"{part.path} and {seen[part.first]} would both be {_name(part.first)}: convert "
                "them in two calls, with another --first-day"
            )
    return parts


def _number(day: str) -> int:
    """Returns the days from 1970-01-01 to YYYYMMDD."""
    try:
        if not re.fullmatch("[0-9]{8}", day):
            raise ValueError
        date = datetime.date.fromisoformat(f"{day[:4]}-{day[4:6]}-{day[6:]}")
    except ValueError:
        raise ConfigError(f"first day {day!r} is no date YYYYMMDD") from None
    return (date - datetime.date(1970, 1, 1)).days


def _name(number: int) -> str:
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=number)
    return f"{date.year:04d}{date.month:02d}{date.day:02d}"


def _settings(buckets: int, min_count: int | None) -> dict[str, Any]:
    """Returns what must be alike in all the days of one root."""
    how = {"ids": "hashing", "buckets": buckets}
    if min_count is not None:
        how = {"ids": "vocabulary", "min_count": min_count}
    return {"dataset": "Criteo", "format": 1, "numbers": "log(1 + max(x, 0)), missing 0"} | how


def _stored(root: Path, settings: dict[str, Any]) -> bool:
    """Returns whether days are there already, after checking that their ids were made alike."""
    marker = root / MARKER
    # The meta file comes with the days: without it the marker is what a killed process left.
    if not marker.exists() or not (root / META_NAME).exists():
        return False
    try:
        found = json.loads(marker.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{marker}: cannot be read: {error}") from error
    if found != settings:
        raise DataError(
            f"{marker}: the days there were made with {json.dumps(found)}, not with "
            f"{json.dumps(settings)}: take the same, or another --root"
        )
    return True


def _ids(root: Path, stored: bool, buckets: int, min_count: int | None, watch: _Watch) -> Ids:
    if min_count is None:
        return Hashing(buckets)
    file = root / VOCABULARY
    if stored:
        try:
            document = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read: {error}") from error
        return Vocabulary.of_document(document, str(file))
    vocabulary = Vocabulary.of_lines(
        (line.categories for _, line in watch.lines("counting")), min_count
    )
    with atomic_file(file) as out:
        out.write(json.dumps(vocabulary.document(), indent=1).encode() + b"\n")
    return vocabulary
