"""The host's half of a lookup: which rows, whose, and in which order; runs in the input thread."""

import itertools
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from monolith_jax.embedding import _ragged
from monolith_jax.embedding._ids import physical_rows
from monolith_jax.embedding._ladder import capacity
from monolith_jax.embedding._lookups import Lookups, StackLookups
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._relay import assign, sizes, step_of
from monolith_jax.embedding._room import NO_ROOM, Room
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding._unique import Scratch, unique_rows

LEAST_ROWS = 2048
"""The least capacity for rows: below it, a tighter fit saves less than a program costs."""


class _Exchange(NamedTuple):
    """As in `StackLookups`."""

    send: np.ndarray | None = None
    relay: np.ndarray | None = None
    forward: np.ndarray | None = None
    parts: np.ndarray | None = None
    received: int = 0


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
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        batch_size: int,
        devices: int,
        per_unit: Mapping[str, int],
        room: Mapping[str, Room] | None = None,
        ragged: Collection[str] = (),
    ) -> None:
        self._stacks = stacks
        self._batch_size = batch_size
        self._devices = devices
        self._per_unit = per_unit
        self._room = room or {}
        self._ragged = frozenset(ragged)
        self._local = threading.local()

    def __call__(self, columns: Mapping[str, Any]) -> Lookups:
        """Returns the lookups of a batch; a pure function of the columns, shapes included."""
        return {stack.name: self._prepare(stack, columns) for stack in self._stacks}

    def _prepare(self, stack: Stack, columns: Mapping[str, Any]) -> StackLookups:
        rows = physical_rows(stack, columns, self._batch_size)
        scratch, room = self._scratch(stack), self._room.get(stack.name, NO_ROOM)
        block = stack.layout.physical_rows // self._devices
        pack = stack.layout.pack if stack.name in self._ragged else 0
        if self._devices == 1:
            unique, index = unique_rows(rows.reshape(-1), scratch)
            owned, exchange = [unique], _Exchange()
        else:
            owned, exchange, index = _route(rows, scratch, block, self._devices, room, pack)
        size = _size(max(map(len, owned)), min(rows.size, block), room.rows)
        lines, slot = None, None
        if (per_unit := self._per_unit[stack.name]) > 1:
            lines, slot = _lines(owned, size, block, per_unit, room.lines or 0)
        padded = np.stack([_padded(mine, size, block, i) for i, mine in enumerate(owned)])
        return StackLookups(
            padded.reshape(-1),
            index.reshape(rows.shape),
            lines=lines,
            slot=slot,
            **exchange._asdict(),
        )

    def _scratch(self, stack: Stack) -> Scratch:
        scratches = self._local.__dict__.setdefault("scratches", {})
        if stack.name not in scratches:
            scratches[stack.name] = Scratch(stack.layout.physical_rows)
        return scratches[stack.name]


def _size(needed: int, most: int, room: int) -> int:
    """Returns the room that there is, if it holds what is needed, else a size of the ladder."""
    return room if needed <= room else capacity(needed, least=LEAST_ROWS, most=max(1, most))


def _route(
    rows: np.ndarray, scratch: Scratch, block: int, devices: int, room: Room, pack: int
) -> tuple[list[np.ndarray], _Exchange, np.ndarray]:
    """Returns what each owner holds, what it sends to whom, and where the ids find it.

    An asker's rows in ascending order are already grouped by owner, since blocks are contiguous.

    Args:
      rows: int64 [batch, ids per example], physical rows, negative for no id.
      scratch: the stack's bitmaps.
      block: rows that a device owns.
      devices: number of devices.
      room: of a program that is there already.
      pack: rows of a line, for the ragged exchange; 0: the one by buckets.

    Returns:
      (owned: per owner the ascending distinct rows; who sends what to whom; index [batch, ids]).
    """
    starts = np.arange(devices + 1) * block
    asked, indices = zip(
        *(unique_rows(part.reshape(-1), scratch) for part in np.split(rows, devices)), strict=True
    )
    bounds = [np.searchsorted(unique, starts) for unique in asked]
    everything, places = unique_rows(np.concatenate(asked), scratch)
    owner_bounds = np.searchsorted(everything, starts)
    owned = [everything[low:high] for low, high in itertools.pairwise(owner_bounds)]

    counts = np.stack([np.diff(bound) for bound in bounds], axis=1)
    most = max(1, min(rows.size // devices, block))
    per_asker = counts.sum(0)
    asker = np.repeat(np.arange(devices), per_asker)
    owner = np.repeat(np.tile(np.arange(devices), devices), counts.T.reshape(-1))
    within = np.concatenate([np.arange(len(unique)) for unique in asked])
    nth = within - np.stack(bounds)[asker, owner]
    asked_rows = (owner, asker, nth, places - owner_bounds[owner])
    if pack:
        exchange, received = _ragged_exchange(
            counts, asked_rows, pack, rows.size // devices, room.send
        )
    else:
        size, hops = sizes(counts, least=max(8, LEAST_ROWS // devices), most=most, room=room.send)
        exchange, received = _exchange(devices, asked_rows, size, hops)
    index = np.empty(rows.size, np.int32)
    first, done = 0, 0
    for n, local in zip(per_asker, indices, strict=True):
        found = np.append(received[first : first + n], NONE).astype(np.int32)
        index[done : done + len(local)] = found[np.minimum(local, n)]
        first, done = first + n, done + len(local)
    return owned, exchange, index.reshape(rows.shape)


def _exchange(
    devices: int,
    asked: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    size: int,
    hops: int,
) -> tuple[_Exchange, np.ndarray]:
    """Returns who sends what to whom, and where each asked row arrives among its asker's.

    Args:
      devices: their number, D.
      asked: (owner, asker, nth, place), each int64 [n]: whose each asked row is, who needs it,
        which of that pair's rows it is, and its place among the owner's rows.
      size: rows of a pair in the direct exchange.
      hops: rows of a pair in each of the two hops of the others; 0: there are none.
    """
    owner, asker, nth, place = asked
    send = np.full((devices, devices, size), NONE, np.int32)
    direct = nth < size
    send[owner[direct], asker[direct], nth[direct]] = place[direct]
    received = owner * size + nth
    if not hops:
        return _Exchange(send), received
    left = np.flatnonzero(~direct)
    hops, via, first, second = assign(owner[left], asker[left], devices, hops, step=step_of(size))
    relay = np.full((devices, devices, hops), NONE, np.int32)
    forward = np.full((devices, devices, hops), NONE, np.int32)
    relay[owner[left], via, first] = place[left]
    forward[via, asker[left], second] = owner[left] * hops + first
    received[left] = devices * size + via * hops + second
    return _Exchange(send, relay, forward), received


def _ragged_exchange(
    counts: np.ndarray,
    asked: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    pack: int,
    most: int,
    room: tuple[int, int] | None,
) -> tuple[_Exchange, np.ndarray]:
    """As `_exchange`, for the ragged exchange: each pair of devices has as many rows as it needs.

    Args:
      counts: int64 [owners, askers], distinct rows asked for.
      asked: as for `_exchange`.
      pack: rows of a line.
      most: the most distinct rows that an asker can ask for.
      room: (S, R) of a program that is there already.
    """
    send_size, received_size = _ragged.sizes(
        counts, pack, least=LEAST_ROWS, most=most, room=room or (0, 0)
    )
    send, parts, received = _ragged.route(counts, asked, pack, send_size)
    return _Exchange(send, parts=parts, received=received_size), received


def _padded(rows: np.ndarray, size: int, block: int, owner: int) -> np.ndarray:
    """Returns rows relative to the owner's block, int32 [size], padded beyond it, all distinct."""
    padded = np.arange(block - len(rows), block - len(rows) + size, dtype=np.int32)
    padded[: len(rows)] = rows - owner * block
    return padded


def _lines(
    owned: list[np.ndarray], size: int, block: int, pack: int, room: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct units of each owner's rows, and where among their rows each row is."""
    lines = [np.unique(mine // pack) for mine in owned]
    lines_block = block // pack
    line_size = _size(max(map(len, lines)), min(size, lines_block), room)
    slot = np.full((len(owned), size), NONE, np.int32)
    for i, (mine, held) in enumerate(zip(owned, lines, strict=True)):
        slot[i, : len(mine)] = np.searchsorted(held, mine // pack) * pack + mine % pack
    padded = [_padded(held, line_size, lines_block, i) for i, held in enumerate(lines)]
    return np.stack(padded).reshape(-1), slot.reshape(-1)
