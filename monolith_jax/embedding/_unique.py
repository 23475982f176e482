"""Distinct rows of a batch, in ascending order, without sorting or hashing.

A bitmap with one bit per row of the table marks what the batch touches, and a second one, with a
bit per word of the first, says where to look. Walking them gives the distinct rows in order; the
count of marks before a word, kept at that word, gives each id its place among them. The cost is
O(ids + touched words + rows / 4096), independent of how often an id repeats, and the scratch is
0.19 bytes per row of the table, reused from batch to batch.
"""

import numpy as np

from monolith_jax._cache import cached_njit
from monolith_jax.embedding._none import NONE


class Scratch:
    """The bitmaps of one stack, all zero between calls; for one thread at a time."""

    def __init__(self, rows: int) -> None:
        words = -(-rows // 64)
        self.words = np.zeros(words, np.uint64)
        self.summary = np.zeros(-(-words // 64), np.uint64)
        self.rank = np.zeros(words, np.int32)


def unique_rows(rows: np.ndarray, scratch: Scratch) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct values of `rows` in ascending order, and where each entry is in them.

    Args:
      rows: int64 [n]; each negative (no id), or less than the rows of the scratch.
      scratch: bitmaps of the table, zero on entry and on return.

    Returns:
      (unique int64 [u], index int32 [n]): `unique[index[i]] == rows[i]`, and `index[i] == NONE`
      where `rows[i]` is negative.

    Example:
      >>> unique, index = unique_rows(np.array([7, 2, -1, 7]), Scratch(10))
      >>> unique.tolist(), index[[0, 1, 3]].tolist(), bool(index[2] == NONE)
      ([2, 7], [1, 0, 1], True)
    """
    index = np.empty(rows.shape[0], np.int32)
    unique = np.empty(rows.shape[0], np.int64)
    count = _unique(rows, scratch.words, scratch.summary, scratch.rank, unique, index)
    return unique[:count], index


@cached_njit(nogil=True, inline="always")
def ones(x):  # type: ignore[no-untyped-def]
    """The number of set bits of a uint64."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@cached_njit(nogil=True, inline="always")
def lowest(x):  # type: ignore[no-untyped-def]
    """The place of the lowest set bit of a uint64 that is not 0."""
    return ones((x & (~x + np.uint64(1))) - np.uint64(1))


@cached_njit(nogil=True)
def _unique(rows, words, summary, rank, unique, index):  # type: ignore[no-untyped-def]
    one, low = np.uint64(1), np.int64(63)
    for i in range(rows.shape[0]):
        row = rows[i]
        if row >= 0:
            word = row >> 6
            words[word] |= one << np.uint64(row & low)
            summary[word >> 6] |= one << np.uint64(word & low)
    count = 0
    for s in range(summary.shape[0]):
        left = summary[s]
        while left:
            word = (np.int64(s) << 6) + lowest(left)
            left &= left - one
            rank[word] = count
            bits = words[word]
            while bits:
                unique[count] = (word << 6) + lowest(bits)
                bits &= bits - one
                count += 1
    for i in range(rows.shape[0]):
        row = rows[i]
        if row < 0:
            index[i] = NONE
        else:
            word = row >> 6
            below = words[word] & ((one << np.uint64(row & low)) - one)
            index[i] = rank[word] + ones(below)
    for i in range(count):
        word = unique[i] >> 6
        words[word] = 0
        summary[word >> 6] = 0
    return count
