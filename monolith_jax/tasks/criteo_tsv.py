r"""Criteo's click logs as Criteo publishes them: lines of tab-separated text, plain or gzip.

    label \t I1 .. I13 \t C1 .. C26

The label is 0 or 1, the numbers are integers, the categories hexadecimal. Any number or category
may be missing: an empty cell. Both Criteo's Kaggle file (`train.txt`) and the days of its Terabyte
log (`day_0.gz` to `day_23.gz`) have this form.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from monolith_jax.errors import DataError

LABEL = "label"
NUMBERS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
MISSING = -1
"""What stands for a category's empty cell."""

_CELLS = 1 + len(NUMBERS) + len(CATEGORIES)
_NUMBER, _CATEGORY = rb"-?[0-9]{1,18}", rb"[0-9a-fA-F]{1,15}"
_LINE = re.compile(
    rb"[01](?:\t(?:%s)?){%d}(?:\t(?:%s)?){%d}" % (_NUMBER, len(NUMBERS), _CATEGORY, len(CATEGORIES))
)


class Line(NamedTuple):
    """A line of the log.

    Attributes:
      where: `file:line`, for errors.
      label: 0 or 1.
      numbers: 13; None where missing.
      categories: 26 as integers; `MISSING` where missing.
      position: bytes of the file, as it is stored, read before this line.
    """

    where: str
    label: int
    numbers: list[int | None]
    categories: list[int]
    position: int


def lines(path: Path) -> Iterator[Line]:
    """Yields the lines of a file, `.gz` by its name, one at a time.

    Raises:
      DataError: the file is damaged or cannot be read, or a line has another form; names file,
        line, column and cell.
    """
    number = 0
    try:
        with open(path, "rb") as raw:
            text: Any = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            position = 0
            for line in text:
                number += 1
                cells = line.rstrip(b"\r\n")
                if cells:
                    yield _parse(f"{path}:{number}", cells, position)
                position = raw.tell()
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: after line {number}: {reason}") from error


def _parse(where: str, line: bytes, position: int) -> Line:
    if not _LINE.fullmatch(line):
        raise DataError(f"{where}: {_fault(line.split(bytes([9])))}")
    cells = line.split(b"\t")
    numbers = [int(cell) if cell else None for cell in cells[1:14]]
    categories = [int(cell, 16) if cell else MISSING for cell in cells[14:]]
    return Line(where, int(cells[0]), numbers, categories, position)


def _fault(cells: list[bytes]) -> str:
    """Returns what is wrong with a line."""
    if len(cells) != _CELLS:
        hint = "; is this a test file, without labels?" if len(cells) == _CELLS - 1 else ""
        return f"{len(cells)} cells, expected {_CELLS}{hint}"
    kinds = [(LABEL, rb"[01]", "0 or 1")]
    kinds += [(name, _NUMBER, "an integer of at most 18 digits") for name in NUMBERS]
    kinds += [(name, _CATEGORY, "at most 15 hexadecimal digits") for name in CATEGORIES]
    for (name, pattern, wanted), cell in zip(kinds, cells, strict=True):
        if not re.fullmatch(pattern, cell) and (cell or name == LABEL):
            return f"column {name}: {cell.decode(errors='replace')!r} is not {wanted}"
    raise AssertionError("the line has no fault")
