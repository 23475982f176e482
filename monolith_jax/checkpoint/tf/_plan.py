"""Which byte ranges of a stored array to read for some of its boxes, and where they go.

Bytes are an innermost dimension here: a float32 [3, 5] is a uint8 [3, 5, 4], stored row by row.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from monolith_jax.checkpoint.tf._boxes import Box, volume

GAP = 128 << 10  # bytes; reading so many for nothing costs less than a second request


class Target(NamedTuple):
    """A box of the stored array and the array of uint8 that receives it, of the box's shape."""

    box: Box
    out: np.ndarray


class Range(NamedTuple):
    """A contiguous range of a stored array: lead[0], ..., lead[k - 1], start..stop, all, ..."""

    lead: tuple[int, ...]
    start: int
    stop: int


View: TypeAlias = tuple[np.ndarray, tuple[slice, ...], bool]  # see `views`


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the bytes between neighbours along each dimension.

    Example:
      >>> strides((3, 5, 4))
      (20, 4, 1)
    """
    out, step = [], 1
    for size in reversed(shape):
        out.append(step)
        step *= size
    return tuple(reversed(out))


def ranges(shape: Sequence[int], boxes: Sequence[Box], gap: int = GAP) -> Iterator[Range]:
    """Yields the ranges that hold the boxes, in the order of their bytes, each byte once.

    Ranges that lie less than `gap` bytes apart are joined.

    Example:
      >>> list(ranges((4, 8, 4), [((0, 1), (0, 8), (0, 4)), ((3, 4), (0, 8), (0, 4))], gap=0))
      [Range(lead=(), start=0, stop=1), Range(lead=(), start=3, stop=4)]
      >>> list(ranges((4, 8, 4), [((0, 4), (2, 4), (0, 4))], gap=32))
      [Range(lead=(), start=0, stop=4)]
      >>> list(ranges((2, 8, 4), [((0, 2), (2, 4), (0, 4))], gap=0))
      [Range(lead=(0,), start=2, stop=4), Range(lead=(1,), start=2, stop=4)]
    """
    steps = strides(shape)
    filled = [box for box in boxes if volume(box)]
    if filled:
        yield from _ranges(shape, steps, filled, (), gap)


def _ranges(
    shape: Sequence[int],
    steps: Sequence[int],
    boxes: Sequence[Box],
    lead: tuple[int, ...],
    gap: int,
) -> Iterator[Range]:
    axis = len(lead)
    step = steps[axis]
    for start, stop in _joined([box[axis] for box in boxes], gap // step):
        inside = [box for box in boxes if box[axis][0] < stop and box[axis][1] > start]
        if step <= gap or all(_full(box, shape, axis + 1) for box in inside):
            yield Range(lead, start, stop)
            continue
        for at in range(start, stop):
            here = [box for box in inside if box[axis][0] <= at < box[axis][1]]
            if here:
                yield from _ranges(shape, steps, here, (*lead, at), gap)


def _joined(spans: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Returns the spans in order, those at most `gap` apart made one."""
    out: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if out and start <= out[-1][1] + gap:
            out[-1] = (out[-1][0], max(out[-1][1], stop))
        else:
            out.append((start, stop))
    return out


def _full(box: Box, shape: Sequence[int], axis: int) -> bool:
    return all(box[d] == (0, shape[d]) for d in range(axis, len(shape)))


def split(shape: Sequence[int], whole: Range, chunk: int) -> Iterator[Range]:
    """Yields the pieces of a range, none of more than `chunk` bytes.

    Example:
      >>> list(split((4, 8, 4), Range((), 0, 3), 64))
      [Range(lead=(), start=0, stop=2), Range(lead=(), start=2, stop=3)]
    """
    axis = len(whole.lead)
    step = strides(shape)[axis]
    if step <= chunk:
        rows = chunk // step
        for start in range(whole.start, whole.stop, rows):
            yield Range(whole.lead, start, min(start + rows, whole.stop))
        return
    for at in range(whole.start, whole.stop):
        yield from split(shape, Range((*whole.lead, at), 0, shape[axis + 1]), chunk)


def extent(shape: Sequence[int], piece: Range) -> tuple[int, int]:
    """Returns the first byte of a range and its length."""
    steps = strides(shape)
    axis = len(piece.lead)
    first = sum(at * step for at, step in zip(piece.lead, steps, strict=False))
    return first + piece.start * steps[axis], (piece.stop - piece.start) * steps[axis]


def views(shape: Sequence[int], piece: Range, targets: Sequence[Target]) -> Iterator[View]:
    """Yields for each target that a range reaches: its part, what fills it, whether that is all.

    The second is an index into the range's bytes as an array [stop - start, *shape[k + 1:]].
    """
    axis = len(piece.lead)
    for box, out in targets:
        low = max(piece.start, box[axis][0])
        high = min(piece.stop, box[axis][1])
        if low >= high or not all(
            start <= at < stop for at, (start, stop) in zip(piece.lead, box, strict=False)
        ):
            continue
        lead = [at - start for at, (start, _) in zip(piece.lead, box, strict=False)]
        rows = slice(low - box[axis][0], high - box[axis][0])
        where: tuple[int | slice, ...] = (*lead, rows)
        part = out[where]
        inner = [slice(start, stop) for start, stop in box[axis + 1 :]]
        source = (slice(low - piece.start, high - piece.start), *inner)
        everything = (low, high) == (piece.start, piece.stop) and _full(box, shape, axis + 1)
        yield part, source, everything
