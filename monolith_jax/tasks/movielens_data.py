"""MovieLens-100K as Monolith's users keep data: `ROOT/YYYYMMDD/HH/part-*`, TFRecord of tf.Example.

    monolith-jax data movielens [--root DIR] [--from FILE]

100,000 ratings of 1,682 movies by 943 users between 1997-09-20 and 1998-04-22 (UTC), each in the
folder of its own hour. A record has:

    user_id, item_id   int64    as in the source, from 1
    age                int64    in years
    gender, occupation int64    codes: their index in vocabulary.json
    genres             int64    list, one to six codes, ascending
    release_year       int64    of the title; 0: unknown
    rating             float32  1.0 to 5.0
    timestamp          int64    seconds since 1970 UTC

Beside the days lie meta.csv (`path,count`), vocabulary.json (the codes) and movielens-100k.json
(where the data comes from, its terms, and its hash).

The data set is GroupLens' (University of Minnesota). Its terms: research use; no redistribution
without separate permission; no commercial use without permission; acknowledge it in publications
(F. M. Harper, J. A. Konstan: The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015);
imply no endorsement. So nothing of it is part of this package: it is fetched on first use.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from monolith_jax._cache import cache_folder
from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input.write import atomic_file, encode_example
from monolith_jax.input.write_dated import DatedWriter
from monolith_jax.tasks import movielens_source as source

USER_ID, ITEM_ID = "user_id", "item_id"
AGE, GENDER, OCCUPATION = "age", "gender", "occupation"
GENRES, RELEASE_YEAR = "genres", "release_year"
RATING, TIMESTAMP = "rating", "timestamp"
FEATURES = (USER_ID, ITEM_ID, AGE, GENDER, OCCUPATION, GENRES, RELEASE_YEAR, RATING, TIMESTAMP)
VOCABULARY_SIZES = {
    USER_ID: 944,
    ITEM_ID: 1683,
    AGE: 100,
    GENDER: len(source.GENDERS),
    OCCUPATION: len(source.OCCUPATIONS),
    GENRES: len(source.GENRES),
}
"""Rows that a table needs for each feature: one more than its largest id."""
MAX_GENRES = 6
FIRST_DAY, LAST_DAY = "19970920", "19980422"
CONTENT_SHA256 = "f5ce74adde4f17f74f4742b2226e870af73d9a202698b9362178b4814cd749bb"
"""The sha256 of all records in order of time, the same from either source."""
MARKER = "movielens-100k.json"
TERMS = (
    "MovieLens-100K is GroupLens' (University of Minnesota): for research, not to be redistributed "
    "or used commercially without permission; cite Harper and Konstan, 2015."
)
_FORMAT = 1
Records = list[tuple[int, bytes]]
_log = logging.getLogger(__name__)


def default_root() -> Path:
    """Returns `$XDG_CACHE_HOME/monolith_jax/movielens`, by default in `~/.cache`."""
    return cache_folder("movielens")


def prepare(
    root: str | os.PathLike[str] | None = None,
    from_file: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Makes sure that the data is in `root`, fetching and converting it on the first call.

    The folder appears when it is complete and not before; a second call finds it and does nothing.

    Args:
      root: local folder, new or empty; `default_root()` if None.
      from_file: the official ml-100k.zip or the wheel of RecBole 1.2.1, in place of a download.
      progress: called with a line of text at each stage.

    Returns:
      The folder, absolute.

    Raises:
      DataError: the data cannot be had, is not MovieLens-100K, or the folder holds other things.
      ConfigError: `root` is not local.
    """
    say = progress or _log.info
    if root is not None and "://" in str(root):
        raise ConfigError(f"{root}: data is written to a local folder; copy it there afterwards")
    target = Path(root if root is not None else default_root()).expanduser().resolve()
    if _is_complete(target):
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(
            f"{target} exists and is not MovieLens-100K as written by this version: remove it or "
            "choose another --root"
        )
    with _temporary_folder(target) as temporary:
        if from_file is not None:
            records = _read(Path(from_file))
        else:
            records = source.fetch(temporary, _read, say)
        say(f"writing {len(records):,} ratings to {target}. {TERMS}")
        staged = temporary / "root"
        _write(staged, records)
        _move(staged, target)
    return target


def _is_complete(root: Path) -> bool:
    try:
        marker = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(marker, dict) and marker.get("format") == _FORMAT


@contextlib.contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """Makes a folder beside `target`, on the same file system, and removes it in the end."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be written: {error.strerror}") from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(staged: Path, target: Path) -> None:
    try:
        os.rename(staged, target)  # onto an empty folder too, never onto a full one
    except OSError as error:
        # Another process may have been first; its data is the same.
        if not _is_complete(target):
            raise DataError(f"{target}: cannot be written: {error.strerror}") from error


def _read(file: Path) -> Records:
    """Returns the records of an archive in order of time, each with its timestamp."""
    data = source.read(file)
    records = [(row.timestamp, _encode(row, data)) for row in data.ratings]
    digest = hashlib.sha256(b"".join(record for _, record in records)).hexdigest()
    if digest != CONTENT_SHA256:
        raise DataError(
            f"{file}: not MovieLens-100K as published: {len(records)} ratings with sha256 "
            f"{digest}, expected 100000 with {CONTENT_SHA256}"
        )
    return records


def _write(root: Path, records: Records) -> None:
    with DatedWriter(root) as writer:
        for timestamp, record in records:
            writer.write(timestamp, record)
    codes = {GENDER: source.GENDERS, OCCUPATION: source.OCCUPATIONS, GENRES: source.GENRES}
    _write_json(root / "vocabulary.json", codes)
    marker = {
        "format": _FORMAT,
        "dataset": "MovieLens-100K",
        "terms": TERMS,
        "ratings": writer.count,
        "sha256": CONTENT_SHA256,
    }
    _write_json(root / MARKER, marker)


def _encode(row: source.Rating, data: source.MovieLens) -> bytes:
    user, item = data.users[row.user], data.items[row.item]
    return encode_example(
        {
            USER_ID: row.user,
            ITEM_ID: row.item,
            AGE: user.age,
            GENDER: user.gender,
            OCCUPATION: user.occupation,
            GENRES: list(item.genres),
            RELEASE_YEAR: item.release_year,
            RATING: float(row.rating),
            TIMESTAMP: row.timestamp,
        }
    )


def _write_json(path: Path, document: object) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(document, indent=1).encode() + b"\n")
