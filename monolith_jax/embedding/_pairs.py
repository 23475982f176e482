"""What the devices ask each other for: counted for all of them, listed for those of this process.

The shapes of a batch, and who relays for whom, follow from how many distinct rows each device asks
each other one for, so every process counts them all, and no word between processes is needed. Which
rows they are matters only where this process has the owner or the asker.

Each asker's ids are grouped by owner first. Then one owner is taken after the other, with bitmaps
of its block alone, which stay in the processor's cache however large the table is: each asker's ids
are marked and counted there, listed where the owner is of this process, and given their places
where the asker is. The union of all askers' marks tells what the owner has to read.
"""

from dataclasses import dataclass

import numpy as np

from monolith_jax._cache import cached_njit
from monolith_jax.embedding import _none
from monolith_jax.embedding._marks import PairScratch, through_pairs
from monolith_jax.embedding._none import NONE

_kernel = cached_njit(_none, nogil=True)


@dataclass(frozen=True)
class Pairs:
    """What a batch's D devices ask each other for; "my" devices are those of this process.

    Attributes:
      counts: int64 [owners, askers], distinct rows asked for.
      owned: int64 [owners], distinct rows that all askers together want.
      units: int64 [owners], distinct units that hold those.
      rows: int64 [n], the rows that my owners are asked for, ascending.
      places: int64 [m], the place among its owner's rows of each row that my owners are asked for;
        by owner, then by asker, ascending.
      index: int32 [batch, ids per example], for my askers, the place of each id's row among those
        that its asker asks for; `NONE` where there is no id. Zeros for other askers.
    """

    counts: np.ndarray
    owned: np.ndarray
    units: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    index: np.ndarray


def pairs_of(
    rows: np.ndarray, block: int, mine: np.ndarray, per_unit: int, scratch: PairScratch
) -> Pairs:
    """Returns what the devices ask each other for.

    Args:
      rows: int64 [ids per example, batch], physical rows, negative for no id; device i has the
        i-th of D equal parts of the examples.
      block: rows that a device owns.
      mine: bool [D], the devices of this process.
      per_unit: rows of a unit, a power of two that divides `block`.
      scratch: of a block.

    Example:
      >>> mine = np.array([True, False])
      >>> pairs = pairs_of(np.array([[3, 3, 1, 7]]), 4, mine, 1, PairScratch(4))
      >>> pairs.counts.tolist(), pairs.owned.tolist()
      ([[1, 1], [0, 1]], [2, 1])
      >>> pairs.rows.tolist(), pairs.places.tolist(), pairs.index.ravel().tolist()
      ([1, 3], [1, 0], [0, 0, 0, 0])
    """
    ids, batch = rows.shape
    devices, each = len(mine), rows.size // len(mine)
    grouped, starts = np.empty((devices, each), np.int32), np.zeros((devices, devices + 1), int)
    _group(rows, block, grouped, starts)
    counts, owned, units = np.zeros((devices, devices), int), *np.zeros((2, devices), int)
    index = np.zeros((batch, ids), np.int32)
    # Upper bounds; what is not written to is no memory. Behind the places is room for one more
    # pair's rows: those that my askers want of other owners are listed too.
    nths = np.empty((devices, each), np.int32)
    mine_have = int(mine.sum()) * block
    places = np.empty(devices * min(each, mine_have) + each, np.int64)
    held = np.empty(min(rows.size, mine_have), np.int64)
    asked, listed = through_pairs(
        grouped,
        starts,
        mine,
        block,
        per_unit.bit_length() - 1,
        scratch.bits,
        (counts, owned, units, places, held, nths),
    )
    _index(rows, block, mine, starts, np.cumsum(counts, axis=0) - counts, nths, index)
    return Pairs(counts, owned, units, held[:listed], places[:asked], index)


@_kernel
def _group(rows, block, grouped, starts):  # type: ignore[no-untyped-def]
    """Puts each asker's ids in the order of their owners, [askers, ids], as rows of the blocks.

    `starts`, int64 [askers, owners + 1] of zeros, gets where each owner's start.
    """
    examples = rows.shape[1] // grouped.shape[0]
    owners = np.empty(grouped.shape[1], np.int32)
    at = np.empty(starts.shape[1], np.int64)
    for asker in range(grouped.shape[0]):
        start, mine, i = starts[asker], grouped[asker], 0
        for k in range(rows.shape[0]):
            for example in range(asker * examples, (asker + 1) * examples):
                row, owners[i] = rows[k, example], -1
                if row >= 0:
                    owners[i] = np.uint64(row) // np.uint64(block)
                    start[owners[i] + 1] += 1
                i += 1
        for owner in range(1, start.shape[0]):
            start[owner] += start[owner - 1]
        at[:] = start
        i = 0
        for k in range(rows.shape[0]):
            for example in range(asker * examples, (asker + 1) * examples):
                owner = owners[i]
                if owner >= 0:
                    mine[at[owner]] = rows[k, example] - owner * block
                    at[owner] += 1
                i += 1


@_kernel
def _index(rows, block, mine, starts, before, nths, index):  # type: ignore[no-untyped-def]
    """Writes my askers' `index`; `before`: how many rows each asks the owners before one for."""
    examples = rows.shape[1] // mine.shape[0]
    for asker in range(mine.shape[0]):
        if mine[asker]:
            at = starts[asker].copy()
            for k in range(rows.shape[0]):
                for example in range(asker * examples, (asker + 1) * examples):
                    row = rows[k, example]
                    if row < 0:
                        index[example, k] = NONE
                    else:
                        owner = np.int64(np.uint64(row) // np.uint64(block))
                        index[example, k] = before[owner, asker] + nths[asker, at[owner]]
                        at[owner] += 1
