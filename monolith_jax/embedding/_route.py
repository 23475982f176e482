"""Who sends what to whom, and where each id finds its row: of what `_pairs` counted and listed.

Sizes, and who relays for whom, follow from the counts of all pairs, in every process alike. What
is written down is this process's devices' part; the rest of each array is zeros that no memory was
taken for.
"""

from typing import NamedTuple

import numpy as np

from monolith_jax._cache import cached_njit
from monolith_jax.embedding import _ragged
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._pairs import Pairs
from monolith_jax.embedding._relay import assign, sizes, step_of

LEAST_ROWS = 2048
"""The least capacity for rows: below it, a tighter fit saves less than a program costs."""


class Exchange(NamedTuple):
    """As in `StackLookups`."""

    send: np.ndarray | None = None
    relay: np.ndarray | None = None
    forward: np.ndarray | None = None
    parts: np.ndarray | None = None
    received: int = 0


class _Ways(NamedTuple):
    """How rows arrive.

    Attributes:
      arrives: int64 [owners, askers], where each pair's rows start among what the asker receives.
      most: the rows of a pair that go there.
      late: by asker, int64, where the others arrive, in the order of owners.
    """

    arrives: np.ndarray
    most: int
    late: list[np.ndarray]


def route(
    pairs: Pairs, mine: np.ndarray, block: int, pack: int, room: tuple[int, int] | None
) -> Exchange:
    """Returns the exchange, and puts in `pairs.index` where each id finds its row.

    Args:
      pairs: what the devices ask each other for.
      mine: bool [D], the devices of this process.
      block: rows that a device owns.
      pack: rows of a line, for the ragged exchange; 0: the one by buckets.
      room: its sizes in a program that is there already.
    """
    exchange, ways = (
        _ragged_exchange(pairs, mine, pack, room) if pack else _buckets(pairs, mine, block, room)
    )
    _find(pairs, mine, ways)
    return exchange


def _find(pairs: Pairs, mine: np.ndarray, ways: _Ways) -> None:
    for asker, part in enumerate(np.split(pairs.index, len(mine))):
        if mine[asker]:
            found, nth = _arrivals(pairs.counts[:, asker], ways.arrives[:, asker])
            found[nth >= ways.most] = ways.late[asker]
            found = np.append(found, NONE).astype(np.int32)
            part[...] = found[np.minimum(part, len(found) - 1)]


def _buckets(
    pairs: Pairs, mine: np.ndarray, block: int, room: tuple[int, int] | None
) -> tuple[Exchange, _Ways]:
    """Every pair has as many places; what is beyond them takes two hops over a third device."""
    counts, devices = pairs.counts, len(mine)
    most = max(1, min(pairs.index.size // devices, block))
    size, hops = sizes(counts, least=max(8, LEAST_ROWS // devices), most=most, room=room)
    owners = np.repeat(np.arange(devices)[:, None], devices, axis=1)
    send = _blank(mine, devices, size)
    leaves = (owners * devices + owners.T) * size
    left = _spread(mine, counts, leaves, size, pairs.places, send.reshape(-1))
    if not hops:
        return Exchange(send), _Ways(owners * size, size, [left] * devices)
    over = np.maximum(counts - size, 0)
    owner = np.repeat(owners.T.reshape(-1), over.T.reshape(-1))
    asker = np.repeat(np.arange(devices), over.sum(0))
    hops, via, first, second = assign(owner, asker, devices, hops, step=step_of(size))
    relay, forward = _blank(mine, devices, hops), _blank(mine, devices, hops)
    here = mine[owner]
    relay[owner[here], via[here], first[here]] = left
    here = mine[via]
    forward[via[here], asker[here], second[here]] = owner[here] * hops + first[here]
    late = np.split(devices * size + via * hops + second, np.cumsum(over.sum(0))[:-1])
    return Exchange(send, relay, forward), _Ways(owners * size, size, late)


def _ragged_exchange(
    pairs: Pairs, mine: np.ndarray, pack: int, room: tuple[int, int] | None
) -> tuple[Exchange, _Ways]:
    """Each pair has as many rows as it needs, filled up to whole lines."""
    counts, devices = pairs.counts, len(mine)
    most = pairs.index.size // devices
    size, received = _ragged.sizes(counts, pack, least=LEAST_ROWS, most=most, room=room or (0, 0))
    leaves, lines, arrives = _ragged.starts(counts, pack)
    send = _blank(mine, size)
    starts = np.arange(devices)[:, None] * size + leaves * pack
    left = _spread(mine, counts, starts, size, pairs.places, send.reshape(-1))
    parts = _ragged.parts(leaves, lines, arrives, mine)
    return (
        Exchange(send, parts=parts, received=received),
        _Ways(arrives * pack, size, [left] * devices),
    )


def _blank(mine: np.ndarray, *shape: int) -> np.ndarray:
    """Returns int32 [D, *shape], `NONE` for my devices."""
    blank = np.zeros((len(mine), *shape), np.int32)
    blank[mine] = NONE
    return blank


@cached_njit(nogil=True)
def _spread(mine, counts, starts, most, places, send):  # type: ignore[no-untyped-def]
    """Writes what my owners send into its places, and returns what has none there.

    Args:
      mine: bool [D].
      counts: int64 [owners, askers].
      starts: int64 [owners, askers], where among `send` each pair's rows start.
      most: rows that a pair has room for there.
      places: int64 [m], as in `Pairs`.
      send: int32, flat; written to.

    Returns:
      int64 [over], the places of the rows beyond `most` of their pair; by asker, then by owner.
    """
    left = np.empty(places.shape[0], np.int64)
    at, i = np.zeros(counts.shape[0], np.int64), 0
    for owner in range(counts.shape[0]):
        at[owner] = i
        i += counts[owner].sum() if mine[owner] else 0
    over = 0
    for asker in range(counts.shape[1]):
        for owner in range(counts.shape[0]):
            if mine[owner]:
                for nth in range(counts[owner, asker]):
                    place = places[at[owner] + nth]
                    if nth < most:
                        send[starts[owner, asker] + nth] = place
                    else:
                        left[over] = place
                        over += 1
                at[owner] += counts[owner, asker]
    return left[:over]


def _arrivals(counts: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns where each row that one asker asks for arrives, and which of its pair it is.

    Args:
      counts: int64 [owners], rows that the asker asks each for.
      starts: int64 [owners], where each owner's rows start among what it receives.

    Example:
      >>> _arrivals(np.array([2, 0, 1]), np.array([0, 8, 16]))
      (array([ 0,  1, 16]), array([0, 1, 0]))
    """
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + nth, nth
