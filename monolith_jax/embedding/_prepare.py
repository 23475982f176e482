"""The host's half of a lookup: which rows, whose, and in which order; runs in the input thread."""

import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monolith_jax.embedding._ids import physical_rows
from monolith_jax.embedding._ladder import capacity
from monolith_jax.embedding._lookups import Lookups, StackLookups
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding._unique import Scratch, unique_rows

LEAST_ROWS = 2048
"""The least capacity for rows: below it, a tighter fit saves less than a program costs."""


class Preparer:
    """Turns a batch's columns into `Lookups`; safe to call from several threads at once.

    Args:
      stacks: the tables.
      batch_size: examples of a batch, over all devices.
      devices: devices that rows and batch are split over.
      whole_lines: also say which lines hold the rows, for backends that move whole lines.
    """

    def __init__(
        self, stacks: Sequence[Stack], batch_size: int, devices: int, whole_lines: bool
    ) -> None:
        self._stacks = stacks
        self._batch_size = batch_size
        self._devices = devices
        self._whole_lines = whole_lines
        self._local = threading.local()

    def __call__(self, columns: Mapping[str, Any]) -> Lookups:
        """Returns the lookups of a batch; a pure function of the columns, shapes included."""
        return {stack.name: self._prepare(stack, columns) for stack in self._stacks}

    def _prepare(self, stack: Stack, columns: Mapping[str, Any]) -> StackLookups:
        rows = physical_rows(stack, columns, self._batch_size)
        scratch = self._scratch(stack)
        block = stack.layout.physical_rows // self._devices
        if self._devices == 1:
            unique, index = unique_rows(rows.reshape(-1), scratch)
            owned, send = [unique], None
        else:
            owned, send, index = _route(rows, scratch, block, self._devices)
        most = min(rows.size, block)
        size = capacity(max(map(len, owned)), least=LEAST_ROWS, most=max(1, most))
        lines, slot = None, None
        if self._whole_lines and stack.layout.pack > 1:
            lines, slot = _lines(owned, size, block, stack.layout.pack)
        padded = np.stack([_padded(mine, size, block, i) for i, mine in enumerate(owned)])
        return StackLookups(padded.reshape(-1), index.reshape(rows.shape), send, lines, slot)

    def _scratch(self, stack: Stack) -> Scratch:
        scratches = self._local.__dict__.setdefault("scratches", {})
        if stack.name not in scratches:
            scratches[stack.name] = Scratch(stack.layout.physical_rows)
        return scratches[stack.name]


def _route(
    rows: np.ndarray, scratch: Scratch, block: int, devices: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Returns what each owner holds, what it sends to whom, and where the ids find it.

    An asker's rows in ascending order are already grouped by owner, since blocks are contiguous.

    Args:
      rows: int64 [batch, ids per example], physical rows, negative for no id.
      scratch: the stack's bitmaps.
      block: rows that a device owns.
      devices: number of devices.

    Returns:
      (owned: per owner the ascending distinct rows; send [owners, askers, C]; index [batch, ids]).
    """
    starts = np.arange(devices + 1) * block
    asked, indices = zip(
        *(unique_rows(part.reshape(-1), scratch) for part in np.split(rows, devices)), strict=True
    )
    bounds = [np.searchsorted(unique, starts) for unique in asked]
    everything, places = unique_rows(np.concatenate(asked), scratch)
    owner_bounds = np.searchsorted(everything, starts)
    owned = [everything[low:high] for low, high in itertools.pairwise(owner_bounds)]

    most = min(rows.size // devices, block)
    needed = max(int(np.diff(bound).max()) for bound in bounds)
    size = capacity(needed, least=max(8, LEAST_ROWS // devices), most=max(1, most))
    send = np.full((devices, devices, size), NONE, np.int32)
    index = np.empty(rows.size, np.int32)
    first, done = 0, 0
    for asker, (unique, bound, local) in enumerate(zip(asked, bounds, indices, strict=True)):
        owner = np.repeat(np.arange(devices), np.diff(bound))
        nth = np.arange(len(unique)) - bound[owner]
        send[owner, asker, nth] = places[first : first + len(unique)] - owner_bounds[owner]
        received = np.append(owner * size + nth, NONE).astype(np.int32)
        index[done : done + len(local)] = received[np.minimum(local, len(unique))]
        first, done = first + len(unique), done + len(local)
    return owned, send, index.reshape(rows.shape)


def _padded(rows: np.ndarray, size: int, block: int, owner: int) -> np.ndarray:
    """Returns rows relative to the owner's block, int32 [size], padded beyond it, all distinct."""
    padded = np.arange(block - len(rows), block - len(rows) + size, dtype=np.int32)
    padded[: len(rows)] = rows - owner * block
    return padded


def _lines(
    owned: list[np.ndarray], size: int, block: int, pack: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct lines of each owner's rows, and where among their rows each row is."""
    lines = [np.unique(mine // pack) for mine in owned]
    lines_block = block // pack
    most = max(1, min(size, lines_block))
    line_size = capacity(max(map(len, lines)), least=LEAST_ROWS, most=most)
    slot = np.full((len(owned), size), NONE, np.int32)
    for i, (mine, held) in enumerate(zip(owned, lines, strict=True)):
        slot[i, : len(mine)] = np.searchsorted(held, mine // pack) * pack + mine % pack
    padded = [_padded(held, line_size, lines_block, i) for i, held in enumerate(lines)]
    return np.stack(padded).reshape(-1), slot.reshape(-1)
