"""Distinct rows of a batch, in ascending order, without sorting or hashing.

A bitmap with one bit per row of the table marks what the batch touches, and a second one, with a
bit per word of the first, says where to look. Walking them gives the distinct rows in order; the
count of marks before a word, kept at that word, gives each id its place among them. The cost is
O(ids + touched words + rows / 4096), independent of how often an id repeats, and the scratch is
0.19 bytes per row of the table, reused from batch to batch.

Between two batches a train step drives the bitmaps of a large table out of the caches. So their
words are fetched some ids before their turn, many at a time instead of one after the other.
"""

import numpy as np
from numba import njit

from monolith_jax._cache import cached_njit
from monolith_jax._host_arrays import empty
from monolith_jax.embedding import _none
from monolith_jax.embedding._cpu import machine
from monolith_jax.embedding._cpu.machine import prefetch
from monolith_jax.embedding._none import NONE

_AHEAD = 256  # how many ids before its turn a word is fetched
_CHUNK = 64  # ids whose words are fetched in one go
_NEAR = 1 << 15  # words of bitmaps up to which fetching costs more than it saves: 256 KiB
_ROUND = 2  # rows of a word that are listed in one go

_kernel = cached_njit(machine, _none, nogil=True)


class Scratch:
    """The bitmaps of one stack, all zero between calls; for one thread at a time."""

    def __init__(self, rows: int) -> None:
        words = -(-rows // 64)
        self.words = np.zeros(words, np.uint64)
        self.summary = np.zeros(-(-words // 64), np.uint64)
        self.rank = np.zeros(words, np.int32)


def unique_rows(
    rows: np.ndarray, scratch: Scratch, room: int = 0
) -> tuple[np.ndarray, int, np.ndarray]:
    """Lists the distinct values of `rows` in ascending order, and says where each entry is in them.

    Args:
      rows: int32 [n]; each negative (no id), or less than the rows of the scratch.
      scratch: bitmaps of the table, zero on entry and on return.
      room: entries that the list has at least, where that is more than n.

    Returns:
      (unique int32 [max(n, room)], count, index int32 [n]): the first `count` of `unique` are the
      distinct rows, what is behind them is not set; `unique[index[i]] == rows[i]`, and
      `index[i] == NONE` where `rows[i]` is negative.

    Example:
      >>> unique, count, index = unique_rows(np.array([7, 2, -1, 7], np.int32), Scratch(10))
      >>> unique[:count].tolist(), index[[0, 1, 3]].tolist(), bool(index[2] == NONE)
      ([2, 7], [1, 0, 1], True)
    """
    index = empty(rows.shape, np.int32)
    unique = empty((max(rows.shape[0], room) + _ROUND - 1,), np.int32)
    count = _unique(rows, scratch.words, scratch.summary, scratch.rank, unique, index)
    return unique[: 1 - _ROUND], count, index


@njit(nogil=True, inline="always")
def ones(x):  # type: ignore[no-untyped-def]
    """The number of set bits of a uint64."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(nogil=True, inline="always")
def lowest(x):  # type: ignore[no-untyped-def]
    """The place of the lowest set bit of a uint64 that is not 0."""
    return ones((x & (~x + np.uint64(1))) - np.uint64(1))


@_kernel
def _unique(rows, words, summary, rank, unique, index):  # type: ignore[no-untyped-def]
    far = words.shape[0] > _NEAR
    if far:
        _fetch(rows[:_AHEAD], words)
    for start in range(0, rows.shape[0], _CHUNK):
        if far:
            _fetch(rows[start + _AHEAD : start + _AHEAD + _CHUNK], words)
        _mark(rows[start : start + _CHUNK], words, summary)
    count = _list(words, summary, rank, unique)
    for start in range(0, rows.shape[0], _CHUNK):
        if far:
            _fetch(rows[start + _AHEAD : start + _AHEAD + _CHUNK], rank)
        _find(rows[start : start + _CHUNK], words, rank, index[start : start + _CHUNK])
    _clear(words, summary)
    return count


@_kernel
def _fetch(rows, by_word):  # type: ignore[no-untyped-def]
    start = np.int64(by_word.ctypes.data)
    for i in range(rows.shape[0]):
        prefetch(start + (np.int64(rows[i]) >> 6) * by_word.itemsize)


@_kernel
def _mark(rows, words, summary):  # type: ignore[no-untyped-def]
    one, low = np.uint64(1), np.int64(63)
    for i in range(rows.shape[0]):
        row = np.int64(rows[i])
        if row >= 0:
            word = row >> 6
            words[word] |= one << np.uint64(row & low)
            summary[word >> 6] |= one << np.uint64(word & low)


@_kernel
def _list(words, summary, rank, unique):  # type: ignore[no-untyped-def]
    """Lists the marked rows and ranks their words; may write _ROUND - 1 entries past the last row.

    A word's rows are written a round at a time, with what is beyond them to be overwritten: most
    words end in their first round, and the processor guesses fewer ends wrong.
    """
    one, count = np.uint64(1), 0
    for s in range(summary.shape[0]):
        left = summary[s]
        while left:
            word = (np.int64(s) << 6) + lowest(left)
            left &= left - one
            rank[word] = count
            bits = words[word]
            after = count + ones(bits)
            while bits:
                for k in range(_ROUND):
                    unique[count + k] = (word << 6) + lowest(bits)
                    bits &= bits - one
                count += _ROUND
            count = after
    return count


@_kernel
def _find(rows, words, rank, index):  # type: ignore[no-untyped-def]
    one, low = np.uint64(1), np.int64(63)
    for i in range(rows.shape[0]):
        row = np.int64(rows[i])
        if row < 0:
            index[i] = NONE
        else:
            word = row >> 6
            below = words[word] & ((one << np.uint64(row & low)) - one)
            index[i] = rank[word] + ones(below)


@_kernel
def _clear(words, summary):  # type: ignore[no-untyped-def]
    one = np.uint64(1)
    for s in range(summary.shape[0]):
        left = summary[s]
        summary[s] = 0
        while left:
            words[(np.int64(s) << 6) + lowest(left)] = 0
            left &= left - one
