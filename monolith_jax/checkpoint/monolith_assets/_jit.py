"""The compiled half: records of one layout into columns, and snappy blocks.

Both check every position against the end before they read or write; numba itself checks none.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numba
import numpy.typing as npt

from monolith_jax._cache import compiled
from monolith_jax.checkpoint.monolith_assets._layout import CLOSE, EMPTY, FLOATS, ID, OPEN
from monolith_jax.input._crc import masked_crc32c

Array: TypeAlias = npt.NDArray[Any]

# Why the walk stopped.
FULL, NEED_BYTES, BAD_HEADER, BAD_CRC, ODD = 0, 1, 2, 3, 4
# Places in its state: where the next record begins, and how many were read.
POS, ROWS = 0, 1
CUT, TOO_LONG, BEFORE_START = -1, -2, -3

_SOURCES = ("_jit.py", "_layout.py", "../../input/_crc.py", "../../input/_jit.py")


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles an entry point without the GIL, cached under a name that tells all its sources."""
    sources = [Path(__file__).parent / name for name in _SOURCES]
    kernel: Callable[..., Any] = compiled(
        partial(numba.njit, nogil=True), function, sources, numba.config.CPU_NAME
    )
    return kernel


_helper = numba.njit(nogil=True)


@_helper
def _word(buf: Array, at: int) -> int:
    """Returns four bytes, little-endian."""
    low = numba.uint32(buf[at]) | numba.uint32(buf[at + 1]) << numba.uint32(8)
    high = numba.uint32(buf[at + 2]) | numba.uint32(buf[at + 3]) << numba.uint32(8)
    return numba.uint32(low | high << numba.uint32(16))


@_helper
def _long(buf: Array, at: int) -> int:
    """Returns eight bytes as int64, little-endian."""
    return numba.int64(_word(buf, at)) | numba.int64(_word(buf, at + 4)) << numba.int64(32)


@_helper
def _varint(buf: Array, at: int, end: int) -> tuple[int, int]:
    """Returns (value as int64, where it ends), or (0, -1) if it is none of ten bytes at most."""
    value = numba.int64(0)
    for shift in range(0, 70, 7):
        if at >= end:
            return numba.int64(0), -1
        byte = numba.int64(buf[at])
        at += 1
        if shift == 63 and byte > 1:
            return numba.int64(0), -1
        value |= (byte & numba.int64(127)) << numba.int64(shift)
        if byte < 128:
            return value, at
    return numba.int64(0), -1


@_helper
def _floats(buf: Array, at: int, end: int, tag: int, words: Array) -> int:
    """Reads words.size tagged floats; returns where they end, or -1."""
    if end - at < 5 * words.size:
        return -1
    for i in range(words.size):
        if buf[at] != tag:
            return -1
        words[i] = _word(buf, at + 1)
        at += 5
    return at


@_helper
def _leaf(
    buf: Array, at: int, end: int, step: Array, words: Array, ints: Array, columns: Array
) -> int:
    """Reads what one step of the program says into the next columns; returns its end, or -1."""
    operation, tag, count = step[0], step[1], step[2]
    if operation == FLOATS:
        at = _floats(buf, at, end, tag, words[columns[0] : columns[0] + count])
        columns[0] += count
    elif operation == ID:
        if end - at < 9 or buf[at] != 9:
            return -1
        ints[0] = _long(buf, at + 1)
        at += 9
    elif operation == EMPTY:
        if end - at >= 2 and buf[at] == tag and buf[at + 1] == 0:
            at += 2
    else:
        value = numba.int64(0)
        if at < end and buf[at] == tag:
            value, at = _varint(buf, at + 1, end)
        ints[columns[1]] = value
        columns[1] += 1
    return at


@_helper
def _entry(
    buf: Array, at: int, end: int, steps: Array, scratch: Array, words: Array, ints: Array
) -> bool:
    """Reads the entry in buf[at:end], its id into ints[0]; False if it is not of the layout."""
    ends, columns = scratch[:4], scratch[4:6]
    ends[0], columns[0], columns[1] = end, 0, 1
    for step in steps:
        if step[0] == OPEN:
            if at >= end or buf[at] != step[1]:
                return False
            length, at = _varint(buf, at + 1, end)
            if at < 0 or length < 0 or length > end - at:
                return False
            end = at + length
            ends[step[2]] = end
        elif step[0] == CLOSE:
            if at != end:
                return False
            end = ends[step[2] - 1]
        else:
            at = _leaf(buf, at, end, step, words, ints, columns)
            if at < 0:
                return False
    return at == end


@_kernel
def walk(
    buf: Array,
    have: int,
    longest: int,
    most: int,
    steps: Array,
    words: Array,
    ints: Array,
    state: Array,
) -> int:
    """Reads records into the rows of `words` and `ints` from state[ROWS] on, `most` in all.

    Args:
      buf: uint8, the stream's bytes.
      have: how many of them count.
      longest: a record of more bytes is a bad header.
      most: stop at so many rows.
      steps: the layout's program [n, 3]; without any, records are only counted.
      words: uint32 [rows, width].
      ints: int64 [rows, 1 + num_ints], the id first.
      state: int64 [8]: position, rows, and scratch.

    Returns:
      FULL, or why it stopped before the record at state[POS].
    """
    scratch = state[2:]
    while state[ROWS] < most:
        at = state[POS]
        if have - at < 12:
            return NEED_BYTES
        length = _long(buf, at)
        if masked_crc32c(buf, at, at + 8) != numba.int64(_word(buf, at + 8)):
            return BAD_HEADER
        if length < 0 or length > longest:
            return BAD_HEADER
        if have - at < length + 16:
            return NEED_BYTES
        start, end = at + 12, at + 12 + length
        if masked_crc32c(buf, start, end) != numba.int64(_word(buf, end)):
            return BAD_CRC
        if steps.shape[0]:
            row = state[ROWS]
            if not _entry(buf, start, end, steps, scratch, words[row], ints[row]):
                return ODD
        state[ROWS] += 1
        state[POS] = end + 4
    return FULL


@_helper
def _copy(out: Array, at: int, back: int, count: int) -> None:
    """Copies within `out`; byte by byte, for it may copy what it is writing."""
    if back >= count:
        out[at : at + count] = out[at - back : at - back + count]
    else:
        for i in range(count):
            out[at + i] = out[at + i - back]


@_helper
def _element(data: Array, at: int, end: int) -> tuple[int, int, int]:
    """Returns (bytes to write, how far back to copy them from or 0, where it ends or -1)."""
    tag = numba.int64(data[at])
    at += 1
    kind, count = tag & 3, (tag >> 2) + 1
    width = (max(count - 60, 0), 1, 2, 4)[kind]
    if end - at < width:
        return 0, 0, -1
    number = numba.int64(0)
    for i in range(width):
        number |= numba.int64(data[at + i]) << numba.int64(8 * i)
    at += width
    if kind == 0:
        return number + 1 if width else count, 0, at
    if kind == 1:
        return ((tag >> 2) & 7) + 4, number | (tag >> 5) << 8, at
    return count, number, at


@_kernel
def unsnap(data: Array, at: int, end: int, out: Array) -> int:
    """Decompresses the body of a raw snappy block, data[at:end], into `out`.

    Returns:
      The bytes written, or CUT, TOO_LONG (more than `out` takes) or BEFORE_START (a copy from
      before the block's first byte).
    """
    filled = 0
    while at < end:
        literal = data[at] & 3 == 0
        count, back, at = _element(data, at, end)
        if at < 0 or (literal and count > end - at):
            return CUT
        if not literal and (back <= 0 or back > filled):
            return BEFORE_START
        if count > out.size - filled:
            return TOO_LONG
        if literal:
            out[filled : filled + count] = data[at : at + count]
            at += count
        else:
            _copy(out, filled, back, count)
        filled += count
    return filled
