"""Cells of a table to values of features: numbers checked, texts to ids, times to seconds."""

import contextlib
import hashlib
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np

from monolith_jax.errors import did_you_mean
from monolith_jax.input.convert_schema import BUILD, FeatureColumn

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Cells:
    """Makes a feature's values of one column's cells.

    Args:
      spec: what the schema says of the column.
      vocabulary: text to id, if the column has one; grows if the schema says "build".
    """

    def __init__(self, spec: FeatureColumn, vocabulary: dict[str, int] | None) -> None:
        self.spec = spec
        self._vocabulary = vocabulary
        self._one: Callable[[Any], int | float] = _int64 if spec.dtype == "int64" else _float32
        if spec.hash_buckets is not None:
            self._one = self._hash
        elif vocabulary is not None:
            self._one = self._look_up
        self._empty = np.zeros(0, spec.dtype)

    def __call__(self, cell: Any) -> Any:
        """Returns the int, the float or the list (an empty one as an array of the dtype).

        Raises:
          ValueError: says what is wrong with the cell, and what would be valid.
        """
        spec = self.spec
        if isinstance(cell, list | tuple) or spec.separator is not None:
            return self._list(cell)
        if cell is None or cell == "":
            if spec.default is None:
                raise ValueError("the cell is empty and the schema gives no default")
            return float(spec.default) if spec.dtype == "float32" else spec.default
        return self._one(cell)

    def _list(self, cell: Any) -> Any:
        if cell is None or cell == "":
            return self._empty
        if isinstance(cell, str):
            cell = cell.split(self.spec.separator)
        elif not isinstance(cell, list | tuple):
            raise ValueError(f"{cell!r} is not a list")
        return [self._one(item) for item in cell] if cell else self._empty

    def _hash(self, cell: Any) -> int:
        assert self.spec.hash_buckets is not None
        digest = hashlib.blake2b(str(cell).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % self.spec.hash_buckets

    def _look_up(self, cell: Any) -> int:
        assert self._vocabulary is not None
        text = str(cell)
        found = self._vocabulary.get(text)
        if found is not None:
            return found
        if self.spec.vocabulary == BUILD:
            return self._vocabulary.setdefault(text, len(self._vocabulary))
        if self.spec.unknown is not None:
            return self.spec.unknown
        choices = did_you_mean(text, self._vocabulary)
        raise ValueError(f"{text!r} is not in the vocabulary: {choices}")


def _int64(cell: Any) -> int:
    try:
        value = int(cell) if not isinstance(cell, str) or "_" not in cell else None
    except (TypeError, ValueError, OverflowError):
        value = None
    if value is None or (not isinstance(cell, str) and value != cell):
        raise ValueError(f"{cell!r} is not an integer; texts need hash_buckets or a vocabulary")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{cell!r} is outside int64")
    return value


def _float32(cell: Any) -> float:
    try:
        value = float(cell) if not isinstance(cell, str) or "_" not in cell else math.nan
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not abs(value) <= 3.4028235e38:
        raise ValueError(f"{cell!r} is not a finite float32 number")
    return value


def to_seconds(cell: Any, unit: str) -> int:
    """Returns a time as whole seconds since 1970-01-01 UTC, rounded down.

    Args:
      cell: a number or its text, a text in ISO 8601, a datetime or a date; no zone means UTC.
      unit: of numbers: s, ms, us, ns; iso8601 for texts.

    Raises:
      ValueError: if the cell is no time.

    Example:
      >>> to_seconds("874724710123", "ms"), to_seconds("1997-09-20T03:05:10", "iso8601")
      (874724710, 874724710)
    """
    if isinstance(cell, str) and unit == "iso8601":
        try:
            cell = datetime.fromisoformat(cell)
        except ValueError:
            raise ValueError(f"{cell!r} is not an ISO 8601 time") from None
    if isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime.combine(cell, time())
    if isinstance(cell, datetime):  # A table's own times carry their unit.
        cell = cell if cell.tzinfo else cell.replace(tzinfo=UTC)
        return math.floor(cell.timestamp())
    if unit == "iso8601":
        raise ValueError(f"{cell!r} is not an ISO 8601 time")
    for number in (_int64, _float32):  # Integers first: a float does not hold every nanosecond.
        with contextlib.suppress(ValueError):
            return int(number(cell) // _PER_SECOND[unit])
    raise ValueError(f"{cell!r} is not a time in {unit}")
