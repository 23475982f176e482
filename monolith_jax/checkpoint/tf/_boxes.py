"""Boxes of an array: where slices lie, how an index is read, and what covers what."""

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import TypeAlias

import numpy as np

from monolith_jax.checkpoint.tf._protos import Extents
from monolith_jax.checkpoint.tf._wire import Malformed

Box: TypeAlias = tuple[tuple[int, int], ...]  # (start, stop) of each dimension
Part: TypeAlias = int | slice | EllipsisType
Index: TypeAlias = Part | tuple[Part, ...]

_MOST_PARTS = 4096  # of a tensor that is cut along more than one dimension


def whole(shape: Sequence[int]) -> Box:
    """Returns the box that is all of an array."""
    return tuple((0, size) for size in shape)


def sizes(box: Box) -> tuple[int, ...]:
    """Returns the shape of a box."""
    return tuple(stop - start for start, stop in box)


def volume(box: Box) -> int:
    """Returns how many elements a box holds."""
    return math.prod(stop - start for start, stop in box)


def meet(a: Box, b: Box) -> Box | None:
    """Returns the elements of both, None if there are none.

    Example:
      >>> meet(((0, 4),), ((2, 9),)), meet(((0, 4),), ((4, 9),))
      (((2, 4),), None)
    """
    both = tuple((max(p, r), min(q, s)) for (p, q), (r, s) in zip(a, b, strict=True))
    return both if all(start < stop for start, stop in both) else None


def within(box: Box, origin: Box) -> tuple[slice, ...]:
    """Returns the index of a box in an array whose first element is that of `origin`."""
    return tuple(
        slice(start - base, stop - base)
        for (start, stop), (base, _) in zip(box, origin, strict=True)
    )


def of_extents(extents: Extents, shape: Sequence[int]) -> Box:
    """Returns the box of a slice's (start, length) pairs.

    Raises:
      Malformed: it does not lie in the shape.
    """
    if len(extents) != len(shape):
        raise Malformed(f"a slice has {len(extents)} dimensions, its tensor {len(shape)}")
    box = []
    for (start, length), size in zip(extents, shape, strict=True):
        stop = size if length < 0 else start + length
        if not 0 <= start <= stop <= size:
            raise Malformed(f"a slice {start}..{stop} lies outside of its tensor's {tuple(shape)}")
        box.append((start, stop))
    return tuple(box)


def of_index(index: Index, shape: Sequence[int]) -> tuple[Box, tuple[int | slice, ...]]:
    """Returns the box that holds `array[index]`, and the index that picks it from the box.

    Args:
      index: ints, slices with any step and an Ellipsis, as numpy takes them.
      shape: the array's.

    Raises:
      IndexError: there is no such element, or too many parts.

    Example:
      >>> of_index((slice(1, 9, 2), -1), (5, 3))
      (((1, 4), (2, 3)), (slice(None, None, 2), 0))
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    if parts.count(Ellipsis) > 1:
        raise IndexError(f"the index {index} has more than one ellipsis")
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    at = parts.index(Ellipsis)
    missing = len(shape) - len(parts) + 1
    if missing < 0:
        raise IndexError(f"the index {index} has too many parts for the shape {tuple(shape)}")
    parts[at : at + 1] = [slice(None)] * missing
    box, pick = [], []
    for part, size in zip(parts, shape, strict=True):
        span, rest = _of_part(part, size)
        box.append(span)
        pick.append(rest)
    return tuple(box), tuple(pick)


def _of_part(part: Part, size: int) -> tuple[tuple[int, int], int | slice]:
    if isinstance(part, slice):
        taken = range(size)[part]
        if not taken:
            return (0, 0), slice(None)
        low, high = min(taken[0], taken[-1]), max(taken[0], taken[-1])
        return (low, high + 1), slice(None, None, taken.step)
    if isinstance(part, EllipsisType):
        raise IndexError("an ellipsis in an odd place")
    at = operator.index(part)
    if not -size <= at < size:
        raise IndexError(f"the index {at} is out of bounds for the size {size}")
    return (at % size, at % size + 1), 0


def check_tiling(boxes: Sequence[Box], shape: Sequence[int]) -> None:
    """Checks that boxes make up an array, each element once.

    Raises:
      Malformed: a part is missing, or two overlap.
    """
    filled = [box for box in boxes if volume(box)]
    if sum(map(volume, filled)) != math.prod(shape):
        raise Malformed(f"its parts do not make up its shape {tuple(shape)}")
    cut = [d for d, size in enumerate(shape) if any(box[d] != (0, size) for box in filled)]
    if len(cut) <= 1:
        spans = sorted(box[d] for box in filled for d in cut)
        if any(b[0] < a[1] for a, b in itertools.pairwise(spans)):
            raise Malformed("its parts overlap")
        return
    if len(filled) * len(cut) > 2 * _MOST_PARTS:
        raise Malformed(
            f"it is cut into {len(filled)} parts along {len(cut)} dimensions; that is too many"
        )
    _check_disjoint([tuple(box[d] for d in cut) for box in filled])


def _check_disjoint(boxes: Iterable[Box]) -> None:
    spans = np.array(list(boxes), np.int64)  # [parts, dimensions, 2]
    for i in range(1, len(spans)):
        before, box = spans[:i], spans[i]
        low = np.maximum(before[:, :, 0], box[:, 0])
        if (low < np.minimum(before[:, :, 1], box[:, 1])).all(axis=1).any():
            raise Malformed("its parts overlap")
