"""Arrays of batches, in memory that is used again once nothing refers to them any more.

The arrays of one batch after the other would keep malloc at work with blocks of some MB, which it
puts where the last step had its temporaries, so that those have to go elsewhere
(`embedding/_cpu/places.py`). The memory is aligned as jax wants it: on CPUs it takes such an array
as it is, without a copy, and lets go of it when no step reads it any more.
"""

import math
import weakref
from collections import deque
from typing import Any, Literal

import numpy as np

LEAST = 1 << 16
"""Bytes below which an array is left to numpy, and in multiples of which memory is kept."""

_ALIGNED = 64  # bytes
_KEPT, _SIZES = 8, 64  # pieces of memory of one size that are kept, and how many sizes

_FREE: dict[int, deque[np.ndarray]] = {}


def empty(shape: tuple[int, ...], dtype: Any, order: Literal["C", "F"] = "C") -> np.ndarray:
    """Returns an array as `numpy.empty` does, perhaps in the memory of one that is gone.

    Safe to call from several threads. What refers to the array or to a view of it, such as a
    `jax.Array` that was made of it without a copy, keeps its memory.

    Args:
      shape: of the array.
      dtype: of its elements.
      order: what lies side by side in memory, as for `numpy.empty`.

    Example:
      >>> first = empty((1000, 100), np.int32)
      >>> where = first.ctypes.data
      >>> del first
      >>> empty((100_000,), np.float32).ctypes.data == where
      True
    """
    count = math.prod(shape) * np.dtype(dtype).itemsize
    if count < LEAST:
        return np.empty(shape, dtype, order)
    size = -(-count // LEAST) * LEAST
    if size not in _FREE and len(_FREE) >= _SIZES:  # several threads may have added one
        _FREE.clear()
    free = _FREE.setdefault(size, deque(maxlen=_KEPT))
    try:
        memory = free.pop()
    except IndexError:
        memory = np.empty(size + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    # Views of views all refer to this array, which refers to a memoryview, so it goes last.
    part: Any = memory[start : start + count]
    whole = np.frombuffer(memoryview(part), dtype)
    weakref.finalize(whole, free.append, memory).atexit = False
    return whole.reshape(shape, order=order)
