"""What the devices ask each other for: counted for all of them, listed for those of this process.

The shapes of a batch, and who relays for whom, follow from how many distinct rows each device asks
each other one for, so every process counts them all, and no word between processes is needed. Which
rows they are matters only where this process has the owner or the asker. A foreign asker's ids are
marked in a bitmap and counted there; neither its rows nor where its ids find them are written down.

The union of all askers' marks tells what each owner has to read, and the place of each row there.
"""

from dataclasses import dataclass

import numpy as np

from monolith_jax._cache import cached_njit
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._unique import Scratch, lowest, ones


@dataclass(frozen=True)
class Pairs:
    """What a batch's D devices ask each other for; "my" devices are those of this process.

    Attributes:
      counts: int64 [owners, askers], distinct rows asked for.
      owned: int64 [owners], distinct rows that all askers together want.
      units: int64 [owners], distinct units that hold those.
      rows: int64 [n], the rows that my owners are asked for, ascending.
      places: int64 [m], the place among its owner's rows of each row that my owners are asked for;
        an asker's behind the one's before, ascending.
      index: int32 [batch, ids per example], for my askers, the place of each id's row among those
        that its asker asks for; `NONE` where there is no id. Zeros for other askers.
    """

    counts: np.ndarray
    owned: np.ndarray
    units: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    index: np.ndarray


class PairScratch:
    """The bitmaps of one stack, all zero between calls; for one thread at a time.

    0.32 bytes per row of the table: an asker's marks, and the union of all.
    """

    def __init__(self, rows: int) -> None:
        self.asker, self.union = Scratch(rows), Scratch(rows, rank=False)


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
      scratch: of the stack.

    Example:
      >>> mine = np.array([True, False])
      >>> pairs = pairs_of(np.array([[3, 3, 1, 7]]), 4, mine, 1, PairScratch(8))
      >>> pairs.counts.tolist(), pairs.owned.tolist()
      ([[1, 1], [0, 1]], [2, 1])
      >>> pairs.rows.tolist(), pairs.places.tolist(), pairs.index.ravel().tolist()
      ([1, 3], [1, 0], [0, 0, 0, 0])
    """
    ids, batch = rows.shape
    devices = len(mine)
    counts = np.zeros((devices, devices), np.int64)
    index = np.zeros((batch, ids), np.int32)
    # An upper bound each; what is not written to is no memory.
    mine_have = int(mine.sum()) * block
    places = np.empty(devices * min(rows.size // devices, mine_have), np.int64)
    held = np.empty(min(rows.size, mine_have), np.int64)
    asker, union = scratch.asker, scratch.union
    asked = _ask(
        rows,
        batch // devices,
        block,
        mine,
        (asker.words, asker.summary, asker.rank),
        (union.words, union.summary),
        counts,
        places,
        index,
    )
    owned, units = np.zeros(devices, np.int64), np.zeros(devices, np.int64)
    bits = union.words, union.summary, asker.rank
    shift = per_unit.bit_length() - 1
    listed = _own(block, mine, shift, bits, owned, units, held)
    _place(mine, counts, np.cumsum(owned) - owned, bits, places)
    return Pairs(counts.T, owned, units, held[:listed], places[:asked], index)


@cached_njit(nogil=True)
def _ask(rows, examples, block, mine, asker_bits, union, counts, asked, index):  # type: ignore[no-untyped-def]
    """Counts each asker's distinct rows by owner, counts [askers, owners], and adds its marks.

    Lists those of my owners in `asked`, and returns their number. For my askers writes `index`.
    """
    done = 0
    for asker in range(mine.shape[0]):
        part = rows[:, asker * examples : (asker + 1) * examples]
        _mark(part, asker_bits[0], asker_bits[1])
        done = _walk(block, mine, asker_bits, union, mine[asker], counts[asker], asked, done)
        if mine[asker]:
            first = asker * examples
            _index(part, asker_bits[0], asker_bits[2], index[first : first + examples])
    return done


@cached_njit(nogil=True)
def _mark(rows, words, summary):  # type: ignore[no-untyped-def]
    one, low = np.uint64(1), np.int64(63)
    for k in range(rows.shape[0]):
        for example in range(rows.shape[1]):
            row = rows[k, example]
            if row >= 0:
                word = row >> 6
                words[word] |= one << np.uint64(row & low)
                summary[word >> 6] |= one << np.uint64(word & low)


@cached_njit(nogil=True)
def _index(rows, words, rank, index):  # type: ignore[no-untyped-def]
    """Writes where each id's row is among the marked ones, and clears the marks."""
    one, low = np.uint64(1), np.int64(63)
    for k in range(rows.shape[0]):
        for example in range(rows.shape[1]):
            row = rows[k, example]
            if row < 0:
                index[example, k] = NONE
            else:
                below = words[row >> 6] & ((one << np.uint64(row & low)) - one)
                index[example, k] = rank[row >> 6] + ones(below)
    for k in range(rows.shape[0]):
        for example in range(rows.shape[1]):
            words[max(rows[k, example], 0) >> 6] = 0


@cached_njit(nogil=True)
def _walk(block, mine, asker_bits, union, ranked, counts, asked, done):  # type: ignore[no-untyped-def]
    """One asker of `_ask`: reads its marks in ascending order, and clears them if not `ranked`."""
    words, summary, rank = asker_bits
    union_words, union_summary = union
    one = np.uint64(1)
    total, owner, end = 0, 0, block
    for s in range(summary.shape[0]):
        left = summary[s]
        if not left:
            continue
        union_summary[s] |= left
        summary[s] = 0
        while left:
            word = (np.int64(s) << 6) + lowest(left)
            left &= left - one
            bits = words[word]
            union_words[word] |= bits
            if ranked:
                rank[word] = total
            else:
                words[word] = 0
            first = word << 6
            while first >= end:
                owner, end = owner + 1, end + block
            if first + 64 <= end and not mine[owner]:
                found = ones(bits)
                counts[owner] += found
                total += found
                continue
            while bits:
                row = first + lowest(bits)
                bits &= bits - one
                while row >= end:
                    owner, end = owner + 1, end + block
                counts[owner] += 1
                total += 1
                if mine[owner]:
                    asked[done] = row
                    done += 1
    return done


@cached_njit(nogil=True)
def _own(block, mine, shift, bits_, owned, units, held):  # type: ignore[no-untyped-def]
    """Counts each owner's rows and units in the union, ranks its words, and lists my owners' rows.

    A rank counts the rows of all owners. Returns how many rows are listed.
    """
    words, summary, rank = bits_
    one = np.uint64(1)
    total, done, owner, end, unit = 0, 0, 0, block, -1
    for s in range(summary.shape[0]):
        left = summary[s]
        while left:
            word = (np.int64(s) << 6) + lowest(left)
            left &= left - one
            rank[word] = total
            bits = words[word]
            while bits:
                row = (word << 6) + lowest(bits)
                bits &= bits - one
                while row >= end:
                    owner, end = owner + 1, end + block
                owned[owner] += 1
                total += 1
                if row >> shift != unit:
                    unit = row >> shift
                    units[owner] += 1
                if mine[owner]:
                    held[done] = row
                    done += 1
    return done


@cached_njit(nogil=True)
def _place(mine, counts, starts, bits_, asked):  # type: ignore[no-untyped-def]
    """Puts in the place of each of `asked` its place among its owner's rows; clears the union."""
    words, summary, rank = bits_
    one, low = np.uint64(1), np.int64(63)
    i = 0
    for asker in range(counts.shape[0]):
        for owner in range(counts.shape[1]):
            if mine[owner]:
                for _ in range(counts[asker, owner]):
                    row = asked[i]
                    below = words[row >> 6] & ((one << np.uint64(row & low)) - one)
                    asked[i] = rank[row >> 6] + ones(below) - starts[owner]
                    i += 1
    for s in range(summary.shape[0]):
        left = summary[s]
        summary[s] = 0
        while left:
            words[(np.int64(s) << 6) + lowest(left)] = 0
            left &= left - one
