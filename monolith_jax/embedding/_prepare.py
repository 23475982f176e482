"""The host's half of a lookup: which rows, whose, and in which order; runs in the input threads."""

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from monolith_jax._host_arrays import empty
from monolith_jax.embedding._ids import physical_rows
from monolith_jax.embedding._ladder import capacity
from monolith_jax.embedding._lookups import Lookups, StackLookups
from monolith_jax.embedding._marks import PairScratch
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._pairs import pairs_of
from monolith_jax.embedding._room import NO_ROOM, Room
from monolith_jax.embedding._route import LEAST_ROWS, route
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding._unique import Scratch, unique_rows

T = TypeVar("T", Scratch, PairScratch)


class Preparer:
    """Turns a batch's columns into `Lookups`; safe to call from several threads at once.

    Args:
      stacks: the tables.
      batch_size: examples of a batch, over all devices.
      devices: devices that rows and batch are split over.
      per_unit: by stack, the rows of what the backend moves at once (`_reach`); where there are
        several, the lookups also say which units hold the rows.
      room: by stack, the sizes of a program that was compiled before; a batch that they hold gets
        them, one that they do not hold gets its own.
      ragged: the stacks whose rows take the ragged exchange.
      mine: bool [devices], those of this process, whose parts of the lookups are made; the others'
        are zeros. None: all.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        batch_size: int,
        devices: int,
        per_unit: Mapping[str, int],
        room: Mapping[str, Room] | None = None,
        ragged: Collection[str] = (),
        mine: np.ndarray | None = None,
    ) -> None:
        self._stacks = stacks
        self._batch_size = batch_size
        self._devices = devices
        self._per_unit = per_unit
        self._room = room or {}
        self._ragged = frozenset(ragged)
        self._mine = np.ones(devices, bool) if mine is None else mine
        self._local = threading.local()

    def __call__(self, columns: Mapping[str, Any]) -> Lookups:
        """Returns the lookups of a batch; a pure function of the columns, shapes included."""
        return {stack.name: self._prepare(stack, columns) for stack in self._stacks}

    def _prepare(self, stack: Stack, columns: Mapping[str, Any]) -> StackLookups:
        if self._devices == 1:
            return self._on_one_device(stack, columns)
        # Feature by feature: a kernel then writes and reads what lies side by side.
        rows = physical_rows(stack, columns, self._batch_size, order="F").T
        mine, room = self._mine, self._room.get(stack.name, NO_ROOM)
        block = stack.layout.physical_rows // self._devices
        per_unit = self._per_unit[stack.name]
        pack = stack.layout.pack if stack.name in self._ragged else 0
        pairs = pairs_of(rows, block, mine, per_unit, self._scratch(stack, PairScratch, block))
        exchange = route(pairs, mine, block, pack, room.send)
        size = _size(int(pairs.owned.max()), min(rows.size, block), room.rows)
        held = np.split(pairs.rows, np.cumsum(pairs.owned[mine])[:-1])
        lines, slot = None, None
        if per_unit > 1:
            most = min(size, block // per_unit)
            line_size = _size(int(pairs.units.max()), most, room.lines or 0)
            lines, slot = _lines(held, mine, size, line_size, block, per_unit)
        return StackLookups(
            _padded(held, mine, size, block),
            pairs.index,
            lines=lines,
            slot=slot,
            **exchange._asdict(),
        )

    def _on_one_device(self, stack: Stack, columns: Mapping[str, Any]) -> StackLookups:
        # One device has at most 2**30 rows (`_stacks.check_rows`).
        rows = physical_rows(stack, columns, self._batch_size, dtype=np.int32)
        scratch = self._scratch(stack, Scratch, stack.layout.physical_rows)
        block, room = stack.layout.physical_rows, self._room.get(stack.name, NO_ROOM)
        unique, count, index = unique_rows(rows.reshape(-1), scratch, room.rows)
        size = _size(count, min(rows.size, block), room.rows)
        lines, slot = None, None
        if (per_unit := self._per_unit[stack.name]) > 1:
            units = int(np.count_nonzero(np.diff(unique[:count] // per_unit, prepend=-1)))
            line_size = _size(units, min(size, block // per_unit), room.lines or 0)
            lines, slot = _lines([unique[:count]], self._mine, size, line_size, block, per_unit)
        _pad(unique[:size], count, block)
        return StackLookups(unique[:size], index.reshape(rows.shape), lines=lines, slot=slot)

    def _scratch(self, stack: Stack, kind: type[T], rows: int) -> T:
        scratches = self._local.__dict__.setdefault("scratches", {})
        if stack.name not in scratches:
            scratches[stack.name] = kind(rows)
        found: T = scratches[stack.name]
        return found


def _size(needed: int, most: int, room: int) -> int:
    """Returns the room that there is, if it holds what is needed, else a size of the ladder."""
    return room if needed <= room else capacity(needed, least=LEAST_ROWS, most=max(1, most))


def _padded(held: list[np.ndarray], mine: np.ndarray, size: int, block: int) -> np.ndarray:
    """Returns my owners' rows relative to their blocks, int32 [D * size]; padding lies beyond.

    Args:
      held: by my owners, ascending rows.
      mine: bool [D]; other devices' parts are zeros.
      size: entries of a device.
      block: rows that a device owns.
    """
    padded = empty((len(mine), size), np.int32)
    padded[~mine] = 0
    for owner, rows in zip(np.flatnonzero(mine), held, strict=True):
        first = int(owner) * block
        np.subtract(rows, first, out=padded[owner, : len(rows)], casting="unsafe")
        _pad(padded[owner], len(rows), block)
    return padded.reshape(-1)


def _pad(rows: np.ndarray, count: int, block: int) -> None:
    """Fills up what is behind the first `count` with rows beyond the block, no two alike."""
    rows[count:] = np.arange(block, block + len(rows) - count, dtype=np.int32)


def _lines(
    held: list[np.ndarray],
    mine: np.ndarray,
    size: int,
    line_size: int,
    block: int,
    per_unit: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct units of my owners' rows, and where among their rows each row is.

    Args:
      held: as for `_padded`, and `mine`, `size` and `block`.
      mine: see there.
      size: see there.
      line_size: entries of a device's list of units.
      block: see there.
      per_unit: rows of a unit.
    """
    slot = np.zeros((len(mine), size), np.int32)
    slot[mine] = NONE
    lines = []
    for owner, rows in zip(np.flatnonzero(mine), held, strict=True):
        units = rows // per_unit
        first = np.diff(units, prepend=-1) != 0
        lines.append(units[first])
        slot[owner, : len(rows)] = (np.cumsum(first) - 1) * per_unit + rows % per_unit
    return _padded(lines, mine, line_size, block // per_unit), slot.reshape(-1)
