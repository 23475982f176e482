"""The bitmaps in which pairs of devices are counted: one owner after the other, asker by asker."""

import numpy as np

from monolith_jax._cache import cached_njit
from monolith_jax.embedding import _unique
from monolith_jax.embedding._unique import lowest, ones

_kernel = cached_njit(_unique, nogil=True)


class PairScratch:
    """The bitmaps of one device's block, all zero between calls; for one thread at a time.

    0.32 bytes per row of the block. A word of an asker's marks and that of the union of all askers'
    lie side by side: where they are not in the cache, it is the way there that an id costs.
    """

    def __init__(self, block: int) -> None:
        words = -(-block // 64)
        self.marks = np.zeros((words, 2), np.uint64)
        self.summary = np.zeros((-(-words // 64), 2), np.uint64)
        self.rank = np.zeros(words, np.int32)

    @property
    def bits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All of it, as the kernels take it."""
        return self.marks, self.summary, self.rank


@_kernel
def through_pairs(grouped, starts, mine, block, shift, bits, out):  # type: ignore[no-untyped-def]
    """Goes through all pairs of devices; returns how many `places` and how many `held` there are.

    For my askers `nths`, like `grouped`, gets which of its pair's distinct rows each id wants.
    """
    counts, owned, units, places, held, nths = out
    asked = listed = 0
    for owner in range(mine.shape[0]):
        first = asked
        for asker in range(mine.shape[0]):
            low, high = starts[asker, owner], starts[asker, owner + 1]
            part = grouped[asker, low:high]
            if high > low and (mine[owner] or mine[asker]):
                counts[owner, asker] = _list(part, bits, places[asked:])
                if mine[owner]:
                    asked += counts[owner, asker]
                if mine[asker]:
                    _rank(part, bits, nths[asker, low:high])
            elif high > low:
                counts[owner, asker] = _count(part, bits)
            for i in range(part.shape[0]):
                bits[0][part[i] >> 6, 0] = 0
        if mine[owner]:
            owned[owner], units[owner] = _own(shift, bits, held[listed:])
            rows = held[listed : listed + owned[owner]]
            _place(rows, owner * block, bits, places[first:asked])
            listed += owned[owner]
        else:
            owned[owner], units[owner] = _others(shift, bits)
    return asked, listed


@_kernel
def _count(rows, bits):  # type: ignore[no-untyped-def]
    """Marks one pair's rows, and returns how many distinct ones there are."""
    marks, summary, _ = bits
    one, low, found = np.uint64(1), np.int32(63), 0
    for i in range(rows.shape[0]):
        word, bit = rows[i] >> 6, one << np.uint64(rows[i] & low)
        if not marks[word, 0] & bit:
            marks[word, 0] |= bit
            marks[word, 1] |= bit
            summary[word >> 6, 1] |= one << np.uint64(word & low)
            found += 1
    return found


@_kernel
def _list(rows, bits_, listed):  # type: ignore[no-untyped-def]
    """As `_count`; also ranks the marked words, and lists the distinct rows in ascending order."""
    marks, summary, rank = bits_
    one, low, found = np.uint64(1), np.int32(63), 0
    for i in range(rows.shape[0]):
        word = rows[i] >> 6
        marks[word, 0] |= one << np.uint64(rows[i] & low)
        summary[word >> 6, 0] |= one << np.uint64(word & low)
    for s in range(summary.shape[0]):
        left = summary[s, 0]
        if left:
            summary[s, 0] = 0
            summary[s, 1] |= left
        while left:
            word = (np.int64(s) << 6) + lowest(left)
            left &= left - one
            bits = marks[word, 0]
            marks[word, 1] |= bits
            rank[word] = found
            while bits:
                listed[found] = (word << 6) + lowest(bits)
                bits &= bits - one
                found += 1
    return found


@_kernel
def _rank(rows, bits, nths):  # type: ignore[no-untyped-def]
    """Writes which of the marked rows each of one pair's ids wants."""
    marks, _, rank = bits
    one, low = np.uint64(1), np.int32(63)
    for i in range(rows.shape[0]):
        word = rows[i] >> 6
        nths[i] = rank[word] + ones(marks[word, 0] & ((one << np.uint64(rows[i] & low)) - one))


@_kernel
def _own(shift, bits_, held):  # type: ignore[no-untyped-def]
    """Lists the union's rows and ranks its words; returns how many rows and units there are."""
    marks, summary, rank = bits_
    one, found, units, unit = np.uint64(1), 0, 0, -1
    for s in range(summary.shape[0]):
        left = summary[s, 1]
        summary[s, 1] = 0
        while left:
            word = (np.int64(s) << 6) + lowest(left)
            left &= left - one
            bits = marks[word, 1]
            rank[word] = found
            while bits:
                row = (word << 6) + lowest(bits)
                bits &= bits - one
                held[found] = row
                found += 1
                if row >> shift != unit:
                    unit = row >> shift
                    units += 1
    return found, units


@_kernel
def _others(shift, bits_):  # type: ignore[no-untyped-def]
    """As `_own`, for an owner of another process: lists nothing, and clears the union."""
    marks, summary, _ = bits_
    one, found, units, unit = np.uint64(1), 0, 0, -1
    for s in range(summary.shape[0]):
        left = summary[s, 1]
        summary[s, 1] = 0
        while left:
            word = (np.int64(s) << 6) + lowest(left)
            left &= left - one
            bits = marks[word, 1]
            marks[word, 1] = 0
            found += ones(bits)
            while shift and bits:
                row = (word << 6) + lowest(bits)
                bits &= bits - one
                if row >> shift != unit:
                    unit = row >> shift
                    units += 1
    return found, units if shift else found


@_kernel
def _place(held, first, bits, asked):  # type: ignore[no-untyped-def]
    """Puts for each row that an owner is asked for its place among `held`, and clears the union.

    `held` then counts from the table's first row on, no longer from the block's.
    """
    marks, _, rank = bits
    one, low = np.uint64(1), np.int64(63)
    for i in range(asked.shape[0]):
        word = asked[i] >> 6
        asked[i] = rank[word] + ones(marks[word, 1] & ((one << np.uint64(asked[i] & low)) - one))
    for i in range(held.shape[0]):
        marks[held[i] >> 6, 1] = 0
        held[i] += first
