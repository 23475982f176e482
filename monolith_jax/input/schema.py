"""What is read from a record: columns, declared by name, type and length, and their values.

A schema is a tuple of `Column`s. Reading with it gives `Columns`: a dict from name to a numpy array
(fixed length) or to a `Ragged` (variable length), every value of row i belonging to example i.

Example:
  >>> schema = (
  ...     Column("label", "float32"),
  ...     Column("embedding", "float32", length=8),
  ...     Column("genres", "int64", length=None),
  ... )
  >>> [column.is_ragged for column in schema]
  [False, False, True]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from monolith_jax.errors import ConfigError


@dataclass(frozen=True)
class Column:
    """One feature of a record, as it is to be read.

    Attributes:
      name: the feature's key in the tf.Example.
      dtype: "int64" (an int64_list) or "float32" (a float_list). A record that holds another kind
        of list under this name is an error, never a conversion.
      length: 1 gives an array [n], k > 1 an array [n, k]; a record with another number of values is
        an error. None is a variable length and gives a `Ragged`.
      default: what stands in for a feature that a record lacks. None: nothing does, a record
        without the feature is an error. A number fills the fixed length. `()`, the empty list, is
        the one default of a variable length, and what TensorFlow's VarLenFeature does.
      max_length: of a variable length only: longer lists keep their first `max_length` values.

    Raises:
      ConfigError: a name, type, length or default that makes no column.

    Example:
      >>> Column("age", "int64", default=-1)
      Column(name='age', dtype='int64', length=1, default=-1, max_length=None)
    """

    name: str
    dtype: Literal["int64", "float32"]
    length: int | None = 1
    default: float | int | tuple[()] | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a column needs a name")
        if self.dtype not in ("int64", "float32"):
            raise ConfigError(
                f"column {self.name!r}: dtype {self.dtype!r} is neither int64 nor float32"
            )
        if self.length is not None and self.length < 1:
            raise ConfigError(f"column {self.name!r}: length {self.length} is below 1")
        if self.length is None:
            if self.default not in (None, ()):
                raise ConfigError(
                    f"column {self.name!r} has a variable length: its default can only be () (the "
                    f"empty list) or None (required), not {self.default!r}"
                )
            if self.max_length is not None and self.max_length < 1:
                raise ConfigError(f"column {self.name!r}: max_length {self.max_length} is below 1")
        else:
            self._check_fixed()

    def _check_fixed(self) -> None:
        if self.max_length is not None:
            raise ConfigError(f"column {self.name!r}: max_length is for variable lengths only")
        if isinstance(self.default, tuple):
            raise ConfigError(f"column {self.name!r}: default () is for variable lengths only")
        if self.dtype == "int64" and not isinstance(self.default, int | None):
            raise ConfigError(
                f"column {self.name!r} is int64: its default {self.default!r} must be an int"
            )
        if self.dtype == "int64" and not -(2**63) <= (self.default or 0) < 2**63:
            raise ConfigError(f"column {self.name!r}: default {self.default} does not fit int64")

    @property
    def is_ragged(self) -> bool:
        """Whether the length is variable."""
        return self.length is None


Schema: TypeAlias = tuple[Column, ...]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
      values: [total], the rows one after the other.
      offsets: int64 [n + 1], ascending, `offsets[0] == 0`, `offsets[n] == total`.

    Example:
      >>> genres = Ragged(np.array([3, 5, 8]), np.array([0, 2, 2, 3]))
      >>> len(genres), genres.row(0).tolist(), genres.lengths.tolist()
      (3, [3, 5], [2, 0, 1])
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of values of each row, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """The bytes that values and offsets take."""
        return self.values.nbytes + self.offsets.nbytes

    def row(self, i: int) -> np.ndarray:
        """Returns the values of row `i`, a view [length].

        Raises:
          IndexError: if `i` is not in [0, n).
        """
        if not 0 <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: "npt.ArrayLike | slice") -> "Ragged":
        """Returns the given rows, in the given order, as a `Ragged` of their own.

        Args:
          rows: indices in [0, n), [m], repeats allowed (a copy), or a slice of step 1 (a view of
            the values).

        Raises:
          IndexError: an index that is not in [0, n).
          ValueError: a slice with a step other than 1.

        Example:
          >>> Ragged(np.array([3, 5, 8]), np.array([0, 2, 2, 3])).take([2, 0]).values.tolist()
          [8, 3, 5]
        """
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise ValueError(f"a slice of rows with step {step}: only step 1 is possible")
            offsets = self.offsets[start : max(start, stop) + 1]
            return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])
        rows = np.asarray(rows, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {len(self)}")
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        # Value j of the result comes from j plus how far its row was moved.
        source = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[source], offsets)

    def to_padded(self, max_length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows as a rectangle, cut at `max_length`, short ones filled with zeros.

        Args:
          max_length: the width L; None: the longest row.

        Returns:
          (values [n, L], lengths int64 [n] of what was kept).

        Example:
          >>> values, lengths = Ragged(np.array([3, 5, 8]), np.array([0, 2, 2, 3])).to_padded(2)
          >>> values.tolist(), lengths.tolist()
          ([[3, 5], [0, 0], [8, 0]], [2, 0, 1])
        """
        lengths = self.lengths
        if max_length is None:
            max_length = int(lengths.max(initial=0))
        kept = np.minimum(lengths, max_length)
        padded = np.zeros((len(self), max_length), self.values.dtype)
        column = np.arange(max_length)
        mask = column < kept[:, None]
        padded[mask] = self.values[(self.offsets[:-1, None] + column)[mask]]
        return padded, kept


Columns: TypeAlias = dict[str, np.ndarray | Ragged]


@dataclass(frozen=True, eq=False)
class Batch:
    """The examples of one step.

    Attributes:
      columns: by name, each of `batch_size` rows.
      weights: float32 [batch_size]; 1 for an example, 0 for the padding of an epoch's last batch,
        whose rows repeat the last example so that every id stays valid.
    """

    columns: Columns
    weights: np.ndarray

    @property
    def num_examples(self) -> int:
        """The rows that are examples, not padding."""
        return int(np.count_nonzero(self.weights))


def num_rows(columns: Columns) -> int:
    """Returns the number of rows, the same in every column; 0 without columns."""
    return len(next(iter(columns.values()))) if columns else 0


def take_rows(columns: Columns, rows: npt.ArrayLike | slice) -> Columns:
    """Returns the given rows of every column: a copy for indices [m], a view for a slice.

    Example:
      >>> columns = {"label": np.array([1, 0, 1]), "user": np.array([7, 8, 9])}
      >>> {name: values.tolist() for name, values in take_rows(columns, [2, 0]).items()}
      {'label': [1, 1], 'user': [9, 7]}
    """
    if not isinstance(rows, slice):
        rows = np.asarray(rows, np.int64)
    return {
        name: values.take(rows) if isinstance(values, Ragged) else _take(values, rows)
        for name, values in columns.items()
    }


def _take(values: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    # np.take is two to three times as fast as indexing with an array.
    return values[rows] if isinstance(rows, slice) else np.take(values, rows, axis=0)


def concat_rows(parts: Sequence[Columns]) -> Columns:
    """Returns the rows of all parts one after the other; one part comes back as it is.

    Raises:
      ValueError: no parts, or parts that do not have the same columns.

    Example:
      >>> parts = [{"user": np.array([7])}, {"user": np.array([8, 9])}]
      >>> concat_rows(parts)["user"].tolist()
      [7, 8, 9]
    """
    if not parts:
        raise ValueError("no parts to concatenate")
    if len(parts) == 1:
        return parts[0]
    names = list(parts[0])
    for part in parts[1:]:
        if list(part) != names:
            raise ValueError(f"parts with different columns: {names} and {list(part)}")
    return {name: _concat([part[name] for part in parts]) for name in names}


def _concat(parts: Sequence[np.ndarray | Ragged]) -> np.ndarray | Ragged:
    ragged = [part for part in parts if isinstance(part, Ragged)]
    if not ragged:
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    values = np.concatenate([part.values for part in ragged])
    lengths = np.concatenate([part.lengths for part in ragged])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Ragged(values, offsets)
