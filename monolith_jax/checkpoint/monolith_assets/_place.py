"""Entries of a dynamic vocabulary into the rows of a table of fixed size.

Monolith's tables hash 64-bit feature ids; ours have rows 0 .. vocab_size - 1. Which id gets which
row is the user's to say: the id itself, a list of ids, or a function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from monolith_jax.checkpoint.monolith_assets._tables import Slice, TableDump
from monolith_jax.errors import CheckpointError, did_you_mean

_SLOT_BITS = {1: 54, 2: 48}  # where the slot begins in an id of each version
_SHOWN = 5

Rows = np.ndarray | Callable[[np.ndarray], np.ndarray] | None


@dataclass(frozen=True)
class PlaceReport:
    """What became of a table's entries.

    Attributes:
      table: its name.
      entries: entries that were read.
      placed: rows that an entry fills.
      without_row: entries whose id has no row; `examples` are the first few ids.
      repeated: entries whose id came again later; the later one counts, as when Monolith restores.
      empty: rows without an entry; they keep their start.
      examples: ids without a row, at most five.
    """

    table: str
    entries: int
    placed: int
    without_row: int
    repeated: int
    empty: int
    examples: tuple[int, ...]

    def __str__(self) -> str:
        more = f" (such as {', '.join(map(str, self.examples))})" if self.examples else ""
        return (
            f"{self.table}: {self.entries:,} entries, {self.placed:,} rows filled, "
            f"{self.empty:,} rows without an entry, {self.without_row:,} ids without a row{more}, "
            f"{self.repeated:,} repeated"
        )


@dataclass(frozen=True)
class Placed:
    """A table of fixed size.

    Attributes:
      embeddings: float32 [size, dim].
      slices: as of the dump, their slots [size, ...].
      filled: bool [size], whether an entry fills the row.
      report: what became of the entries.
    """

    embeddings: np.ndarray
    slices: tuple[Slice, ...]
    filled: np.ndarray
    report: PlaceReport


def slots_of(ids: np.ndarray, version: int = 2) -> np.ndarray:
    """Returns the feature slots that Monolith's ids carry in their upper bits, int64 [n].

    Args:
      ids: int64 [n].
      version: 2, `id >> 48` in 15 bits, or 1, `id >> 54`; reader_util.h, `slot_id_v2`.

    Example:
      >>> slots_of(np.array([(3 << 48) + 7])).tolist()
      [3]
    """
    found = np.asarray(ids).view(np.uint64) >> np.uint64(_bits(version))
    return (found & np.uint64(0x7FFF) if version == 2 else found).astype(np.int64)


def signatures_of(ids: np.ndarray, version: int = 2) -> np.ndarray:
    """Returns Monolith's ids without their slot, int64 [n].

    Args:
      ids: int64 [n].
      version: 2 keeps the lower 48 bits, 1 the lower 54.

    Example:
      >>> signatures_of(np.array([(3 << 48) + 7])).tolist()
      [7]
    """
    return np.asarray(ids) & ((1 << _bits(version)) - 1)


def place(
    table: TableDump,
    size: int,
    rows: Rows = None,
    *,
    initial: np.ndarray | None = None,
    initial_slots: Mapping[str, float] | None = None,
) -> Placed:
    """Puts the entries of a dump into a table of fixed size.

    Args:
      table: the entries.
      size: rows of the result, our table's `vocab_size`.
      rows: which row an id gets. None: the id itself, if 0 <= id < size. An array int64 [m],
        m <= size: row r holds the id `rows[r]`. A function: ids int64 [n] to rows int64 [n], below
        0 for none; `signatures_of` is one.
      initial: float32 [size, dim], the rows that no entry fills; zeros if None.
      initial_slots: by "optimizer.field" ("adagrad.norm": 0.1), what those rows' slots hold; 0
        where nothing is said.

    Returns:
      The table, with a report of the ids that have no row, and of the rows that have no entry.

    Raises:
      CheckpointError: two different ids have the same row, a function gives a row beyond the table,
        or `initial` is of another shape; names the table.

    Example:
      >>> none = np.zeros(2, np.int64)
      >>> ids, values = np.array([7, 9]), np.array([[1.0], [2.0]], np.float32)
      >>> placed = place(TableDump("user", ids, values, (), none), 3, np.array([9, 8, 7]))
      >>> placed.embeddings[:, 0].tolist(), placed.filled.tolist()
      ([2.0, 0.0, 1.0], [True, False, True])
      >>> print(placed.report)
      user: 2 entries, 2 rows filled, 1 rows without an entry, 0 ids without a row, 0 repeated
    """
    targets = _targets(table, size, rows)
    has_row = targets >= 0
    last = _last_of_each(table.ids, has_row)
    where = targets[last]
    _check_distinct(table, where, last)
    embeddings = _start(table, size, initial)
    embeddings[where] = table.embeddings[last]
    filled = np.zeros(size, bool)
    filled[where] = True
    slices = _place_slots(table, size, where, last, dict(initial_slots or {}))
    report = PlaceReport(
        table=table.name,
        entries=table.ids.size,
        placed=where.size,
        without_row=int(np.count_nonzero(~has_row)),
        repeated=int(np.count_nonzero(has_row)) - where.size,
        empty=size - where.size,
        examples=tuple(table.ids[~has_row][:_SHOWN].tolist()),
    )
    return Placed(embeddings, slices, filled, report)


def _targets(table: TableDump, size: int, rows: Rows) -> np.ndarray:
    """Returns the row of each entry, int64 [n], -1 for none."""
    ids = table.ids
    if rows is None:
        return np.where((ids >= 0) & (ids < size), ids, -1)
    if callable(rows):
        found = np.asarray(rows(ids))
        if found.shape != ids.shape or found.dtype.kind != "i":
            raise CheckpointError(
                f"table {table.name!r}: the function of rows gave {found.dtype} "
                f"{list(found.shape)} for int64 {list(ids.shape)}"
            )
        if found.size and found.max() >= size:
            at = int(found.argmax())
            raise CheckpointError(
                f"table {table.name!r}: id {ids[at]} has row {found[at]}; there are {size} rows"
            )
        return np.maximum(found, -1).astype(np.int64)
    vocabulary = np.asarray(rows)
    if vocabulary.ndim != 1 or vocabulary.dtype.kind != "i" or vocabulary.size > size:
        raise CheckpointError(
            f"table {table.name!r}: a list of ids is int64 [m], m <= {size}; got "
            f"{vocabulary.dtype} {list(vocabulary.shape)}"
        )
    return _look_up(table.name, ids, vocabulary.astype(np.int64))


def _look_up(name: str, ids: np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
    if not vocabulary.size:
        return np.full(ids.shape, -1, np.int64)
    order = np.argsort(vocabulary, kind="stable")
    ascending = vocabulary[order]
    twice = np.flatnonzero(ascending[1:] == ascending[:-1])
    if twice.size:
        first, second = order[twice[0]], order[twice[0] + 1]
        raise CheckpointError(
            f"table {name!r}: the list of ids has {ascending[twice[0]]} in rows {first} and "
            f"{second}"
        )
    at = np.minimum(np.searchsorted(ascending, ids), ascending.size - 1)
    return np.where(ascending[at] == ids, order[at], -1)


def _last_of_each(ids: np.ndarray, has_row: np.ndarray) -> np.ndarray:
    """Returns the index of the last entry of each id that has a row, ascending."""
    candidates = np.flatnonzero(has_row)[::-1]
    _, first = np.unique(ids[candidates], return_index=True)
    return np.sort(candidates[first])


def _check_distinct(table: TableDump, where: np.ndarray, last: np.ndarray) -> None:
    order = np.argsort(where, kind="stable")
    same = np.flatnonzero(where[order[1:]] == where[order[:-1]])
    if same.size:
        first, second = order[same[0]], order[same[0] + 1]
        raise CheckpointError(
            f"table {table.name!r}: ids {table.ids[last[first]]} and {table.ids[last[second]]} "
            f"both have row {where[first]}"
        )


def _start(table: TableDump, size: int, initial: np.ndarray | None) -> np.ndarray:
    shape = (size, table.embeddings.shape[1])
    if initial is None:
        return np.zeros(shape, np.float32)
    if initial.shape != shape and table.ids.size:
        raise CheckpointError(
            f"table {table.name!r}: initial is {list(initial.shape)}, the table {list(shape)}"
        )
    return np.array(initial, np.float32)


def _place_slots(
    table: TableDump, size: int, where: np.ndarray, last: np.ndarray, starts: dict[str, float]
) -> tuple[Slice, ...]:
    known = {f"{of.optimizer}.{field}" for of in table.slices for field in of.slots}
    for name in starts:
        if name not in known and table.ids.size:
            raise CheckpointError(
                f"table {table.name!r}: no slot {name!r}; {did_you_mean(name, known)}"
            )
    slices = []
    for of in table.slices:
        slots = {}
        for field, values in of.slots.items():
            start = starts.get(f"{of.optimizer}.{field}", 0)
            slots[field] = np.full((size, *values.shape[1:]), start, values.dtype)
            slots[field][where] = values[last]
        slices.append(Slice(of.optimizer, of.dim, slots))
    return tuple(slices)


def _bits(version: int) -> int:
    if version not in _SLOT_BITS:
        raise CheckpointError(f"ids of version {version}; valid are 1 and 2")
    return _SLOT_BITS[version]
