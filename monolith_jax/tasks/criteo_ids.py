"""Criteo's categories as ids of table rows: by hashing, or by a vocabulary of the frequent ones."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.tasks.criteo_tsv import CATEGORIES, MISSING

MISSING_ID, RARE_ID, FIRST_ID = 0, 1, 2
_MISSING_TEXT, _RARE_TEXT = "(missing)", "(rare)"


class Ids(Protocol):
    """Makes ids of the 26 categories of a line."""

    def __call__(self, categories: Sequence[int]) -> list[int]:
        """Returns the id of each category."""

    def sizes(self) -> dict[str, int]:
        """Returns the rows that a table needs, by category: one more than the largest id."""


class Hashing:
    """id = 0 if the category is missing, else 1 + value mod (buckets - 1).

    Criteo's values are hashes already, so their remainders spread evenly.

    Args:
      buckets: ids, the one of missing categories included.

    Example:
      >>> Hashing(11)([25, MISSING, 20])
      [6, 0, 1]
    """

    def __init__(self, buckets: int) -> None:
        if buckets < 2:
            raise ConfigError(f"buckets must be at least 2, got {buckets}")
        self.buckets = buckets

    def __call__(self, categories: Sequence[int]) -> list[int]:
        """Returns the id of each category."""
        buckets = self.buckets - 1
        return [0 if value == MISSING else 1 + value % buckets for value in categories]

    def sizes(self) -> dict[str, int]:
        """Returns the rows that a table needs, by category."""
        return dict.fromkeys(CATEGORIES, self.buckets)


class Vocabulary:
    """id = 0 if the category is missing, 1 if it is not in the vocabulary, else its place there.

    Args:
      values: for each category, the values in the order of their ids, from 2 on.

    Example:
      >>> vocabulary = Vocabulary([[7, 3]] + [[]] * 25)
      >>> vocabulary([3, MISSING, 3] + [MISSING] * 23)[:3]
      [3, 0, 1]
    """

    def __init__(self, values: Sequence[Sequence[int]]) -> None:
        self._places = [
            {value: place for place, value in enumerate(column, FIRST_ID)} for column in values
        ]

    def __call__(self, categories: Sequence[int]) -> list[int]:
        """Returns the id of each category."""
        return [
            MISSING_ID if value == MISSING else places.get(value, RARE_ID)
            for value, places in zip(categories, self._places, strict=True)
        ]

    def sizes(self) -> dict[str, int]:
        """Returns the rows that a table needs, by category."""
        counts = (len(places) + FIRST_ID for places in self._places)
        return dict(zip(CATEGORIES, counts, strict=True))

    def document(self) -> dict[str, list[str]]:
        """Returns the vocabulary for a JSON file: by category, the texts in the order of ids."""
        return {
            name: [_MISSING_TEXT, _RARE_TEXT, *(f"{value:08x}" for value in places)]
            for name, places in zip(CATEGORIES, self._places, strict=True)
        }

    @classmethod
    def of_document(cls, document: dict[str, list[str]], where: str) -> "Vocabulary":
        """Returns the vocabulary of a JSON file.

        Raises:
          DataError: it is none; `where` names the file.
        """
        try:
            columns = [document[name] for name in CATEGORIES]
            if any(column[:2] != [_MISSING_TEXT, _RARE_TEXT] for column in columns):
                raise ValueError("its first two texts are not those of missing and rare")
            return cls([[int(text, 16) for text in column[2:]] for column in columns])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: not a vocabulary of Criteo's categories: {error}") from error

    @classmethod
    def of_lines(cls, lines: Iterable[Sequence[int]], min_count: int) -> "Vocabulary":
        """Returns the values that appear at least `min_count` times, the most frequent first.

        Equally frequent ones come in the order of their values, so that the ids do not depend on
        the order of the lines. All distinct values are held in memory, some 100 bytes each.

        Args:
          lines: the categories of each line.
          min_count: appearances that a value needs for an id of its own.
        """
        if min_count < 1:
            raise ConfigError(f"min_count must be at least 1, got {min_count}")
        counters: list[Counter[int]] = [Counter() for _ in CATEGORIES]
        for categories in lines:
            for counter, value in zip(counters, categories, strict=True):
                counter[value] += 1
        columns = []
        for counter in counters:
            counter.pop(MISSING, None)
            kept = [item for item in counter.items() if item[1] >= min_count]
            columns.append([value for value, _ in sorted(kept, key=lambda i: (-i[1], i[0]))])
        return cls(columns)
