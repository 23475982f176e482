"""The host's half: from ids to the library's buffers, every id counted; in the input threads."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from monolith_jax.embedding._ids import id_weights, physical_rows
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.sparsecore.layout import CoreLayout
from monolith_jax.embedding.sparsecore.library import PADDING, Buffers, preprocess
from monolith_jax.embedding.sparsecore.limits import Demand, Limits, check, limits_of
from monolith_jax.embedding.sparsecore.lookups import CoreLookups, Samples
from monolith_jax.errors import DataError


class Preparer:
    """The lookups of batches into one stack.

    Args:
      stack: the tables and the lookups into them.
      layout: where their rows live.
      batch_size: examples of a batch.
      most_rows: distinct rows that a SparseCore can ask another for.
      limits: fixed ones; None: each batch's own.
      room: the limits of a program that is there already, for the batches that they hold.
    """

    def __init__(
        self,
        stack: Stack,
        layout: CoreLayout,
        batch_size: int,
        most_rows: int,
        limits: Limits | None = None,
        room: Limits | None = None,
    ) -> None:
        self.stack, self.layout, self.batch_size = stack, layout, batch_size
        self.samples = Samples(stack, batch_size, layout.total_cores)
        self._most_rows, self._limits, self._room = most_rows, limits, room
        numbers = self.samples.numbers().reshape(-1)
        # The library wants the ids of each SparseCore side by side.
        self._order = np.argsort(numbers, kind="stable")
        self._numbers = numbers[self._order]

    def __call__(self, columns: Mapping[str, Any]) -> CoreLookups:
        """Returns the lookups of a batch, as numpy arrays.

        Args:
          columns: by name, as for `XlaEngine.prepare`.

        Raises:
          DataError: as there; or more distinct rows than a SparseCore holds.
        """
        rows = physical_rows(self.stack, columns, self.batch_size)
        there = rows.reshape(-1)[self._order]
        kept = there >= 0
        physical, sample = there[kept], self._numbers[kept]
        buffers = self._buffers(physical, sample)
        inside = _inside(buffers)
        self._count(buffers, inside, len(physical))
        demand, used = _demand(buffers, inside)
        limits = self._limits or limits_of(demand, used, self._most_rows, self._room)
        check(self.stack, demand, used, limits, given=self._limits is not None)
        gains = self._gains(columns, rows, kept, physical, sample)
        if gains is not None:
            self._weigh(buffers, inside, physical, sample, gains)
        return self._lookups(buffers, inside, limits, self._masks(rows))

    def _buffers(self, physical: np.ndarray, sample: np.ndarray) -> Buffers:
        """Calls the library with limits that this batch cannot exceed."""
        cores = self.layout.total_cores
        ids = self.layout.id_of(physical)
        pairs = sample // self.samples.per_core * cores + ids % cores
        counts = np.bincount(pairs, minlength=cores * cores).reshape(cores, cores)
        size = int(_up(counts).sum(axis=1).max(initial=0))
        most = int(counts.max(initial=0))
        return preprocess(self.layout, ids, sample, self.samples.per_core, most, max(size, 8))

    def _count(self, buffers: Buffers, inside: np.ndarray, wanted: int) -> None:
        """Raises unless every id is in the buffers; a gain is how often its sample has the row."""
        found = round(float(buffers.gains[inside].sum(dtype=np.float64)))
        if found != wanted:
            tables = ", ".join(repr(table.name) for table in self.stack.tables)
            raise DataError(
                f"tables {tables}: of {wanted} ids of a batch, jax-tpu-embedding dropped "
                f"{wanted - found}"
            )

    def _gains(
        self,
        columns: Mapping[str, Any],
        rows: np.ndarray,
        kept: np.ndarray,
        physical: np.ndarray,
        sample: np.ndarray,
    ) -> np.ndarray | None:
        """Returns what each id's row is multiplied by, as `physical`; None: 1 everywhere."""
        weights = id_weights(self.stack, columns, self.batch_size)
        combiners = any(_scaled(part) for part in self.stack.features)
        if weights is None and not combiners:
            return None
        there = rows >= 0
        gains = there.astype(np.float32) if weights is None else np.where(there, weights, 0.0)
        start = 0
        for part in self.stack.features:
            mine = gains[:, start : start + part.max_length]
            start += part.max_length
            if part.feature.sequence or part.feature.combiner == "sum":
                continue
            squares = part.feature.combiner == "sqrtn"
            total = np.square(mine).sum(1) if squares else mine.sum(1)
            total = np.sqrt(total) if squares else total
            mine /= np.where(total > 0.0, total, 1.0).astype(np.float32)[:, None]
        return gains.reshape(-1)[self._order][kept]

    def _weigh(
        self,
        buffers: Buffers,
        inside: np.ndarray,
        physical: np.ndarray,
        sample: np.ndarray,
        gains: np.ndarray,
    ) -> None:
        """Replaces the library's gains, in place: of a row that a sample has twice, their sum."""
        key = physical * self.samples.total + sample
        order = np.argsort(key, kind="stable")
        distinct, first = np.unique(key[order], return_index=True)
        if not len(distinct):
            return
        sums = np.add.reduceat(gains[order].astype(np.float64), first)
        core, place = np.nonzero(inside)
        owner = _owners(buffers, core, place)
        row = self.layout.physical_of(owner, buffers.rows[core, place].astype(np.int64))
        asked = row * self.samples.total + core * self.samples.per_core
        asked += buffers.samples[core, place]
        buffers.gains[core, place] = sums[np.searchsorted(distinct, asked)]

    def _masks(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        masks, start = {}, 0
        for part in self.stack.features:
            if part.feature.sequence:
                masks[part.feature.mask_name] = rows[:, start : start + part.max_length] >= 0
            start += part.max_length
        return masks

    def _lookups(
        self,
        buffers: Buffers,
        inside: np.ndarray,
        limits: Limits,
        masks: dict[str, np.ndarray],
    ) -> CoreLookups:
        """Returns the buffers in arrays of the limits' size, with nothing undefined in between."""
        cores = self.layout.total_cores
        pointers = np.empty((cores, max(cores, 8)), np.int32)
        pointers[:, :cores] = buffers.ends
        pointers[:, cores:] = _up(buffers.ends[:, -1:])
        n = min(limits.buffer, inside.shape[1])

        def sized(array: np.ndarray, fill: Any) -> np.ndarray:
            whole = np.full((cores, limits.buffer), fill, array.dtype)
            whole[:, :n] = np.where(inside[:, :n], array[:, :n], fill)
            return whole.reshape(-1)

        return CoreLookups(
            pointers=pointers.reshape(-1),
            rows=sized(buffers.rows, PADDING),
            samples=sized(buffers.samples, PADDING),
            gains=sized(buffers.gains, np.nan),
            masks=masks,
            max_ids=limits.ids,
            max_rows=limits.rows,
        )


def _scaled(part: Any) -> bool:
    feature = part.feature
    return not feature.sequence and feature.combiner != "sum" and part.max_length > 1


def _up(n: np.ndarray) -> np.ndarray:
    return (n + 7) // 8 * 8


def _starts(buffers: Buffers) -> np.ndarray:
    """Returns where each owner's share starts, [C, C]."""
    return np.concatenate([np.zeros_like(buffers.ends[:, :1]), _up(buffers.ends[:, :-1])], axis=1)


def _inside(buffers: Buffers) -> np.ndarray:
    """Returns where the buffers hold entries, bool [C, n]."""
    edges = np.zeros((len(buffers.rows), buffers.rows.shape[1] + 1), np.int32)
    core = np.arange(len(edges))[:, None]
    np.add.at(edges, (core, _starts(buffers)), 1)
    np.add.at(edges, (core, buffers.ends), -1)
    inside: np.ndarray = edges.cumsum(axis=1)[:, :-1] > 0
    return inside


def _owners(buffers: Buffers, core: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Returns the owner of each entry, given by its SparseCore and its place there."""
    n = buffers.rows.shape[1] + 1
    ends = (buffers.ends.astype(np.int64) + np.arange(len(buffers.ends))[:, None] * n).reshape(-1)
    # Entries of a SparseCore come before its own ends and behind those of the ones before.
    return np.searchsorted(ends, core * n + place, side="right") - core * len(buffers.ends)


def _demand(buffers: Buffers, inside: np.ndarray) -> tuple[Demand, int]:
    """Returns what a batch wants, and the entries that the fullest SparseCore's buffer takes."""
    cores = len(buffers.ends)
    core, place = np.nonzero(inside)
    owner = _owners(buffers, core, place)
    pair = core * cores + owner
    row = buffers.rows[core, place]
    new = np.ones(len(row), bool)
    new[1:] = (row[1:] != row[:-1]) | (pair[1:] != pair[:-1])
    rows = np.bincount(pair[new], minlength=cores * cores).reshape(cores, cores)
    ids = (buffers.ends - _starts(buffers)).astype(np.int64)
    return Demand(ids, rows), int(_up(buffers.ends[:, -1]).max(initial=0))
