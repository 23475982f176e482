"""What does not fit the direct exchange takes a detour over a third device; nothing is dropped.

Every pair of devices exchanges `C` rows, so one busy pair would pad all the others to its size: at
512 devices the busiest pair asks for nearly twice the mean. So `C` is chosen below the busiest
pair, and what is left over goes in two hops, owner -> relay -> asker, of `R` rows a pair. A device
that has `h` rows too many to send or to receive spreads them over all D relays; that `R = ceil(h /
D)` is enough for any pattern is König's theorem on colouring the edges of a bipartite graph. Here
the first relay with room on both hops is taken, which needs twice that at worst.
"""

import math

import numpy as np

from monolith_jax._cache import cached_njit
from monolith_jax.embedding._ladder import STEPS_PER_OCTAVE, capacity

_WORTH = 1 / 8
"""The share of the direct exchange that two more exchanges must save."""

_STEPS = 64
"""R is a multiple of C / 64: batches that resemble each other take few sizes of it."""


def sizes(
    counts: np.ndarray, *, least: int, most: int, room: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Returns (C, R), the rows of each pair in the direct exchange and in each of the two hops.

    Of all rungs of the ladder the one with the least `C + 2 R`; R is 0 where the direct exchange
    holds everything. R too is of few sizes: every other one is one more program to compile.

    Args:
      counts: int64 [owners, askers], distinct rows asked for.
      least: the least C.
      most: the most that a pair can ask for.
      room: (C, R) of a program that is there already; taken if it holds everything.

    Example:
      >>> counts = np.full((8, 8), 100)
      >>> sizes(counts, least=8, most=1000)
      (112, 0)
      >>> counts[0, 3] = 400
      >>> sizes(counts, least=8, most=1000)
      (96, 42)
      >>> sizes(counts, least=8, most=1000, room=(320, 16))
      (320, 16)
    """
    if room is not None and _hops(counts, room[0]) <= room[1]:
        return room
    full = capacity(int(counts.max()), least=least, most=most)
    best, found = full * (1 - _WORTH), (full, 0)
    rungs = range(int(STEPS_PER_OCTAVE * math.log2(full)), 0, -1)
    for size in dict.fromkeys(
        capacity(int(2 ** (k / STEPS_PER_OCTAVE)), least=least, most=most) for k in rungs
    ):
        hops = _hops(counts, size)
        hops = -(-hops // step_of(size)) * step_of(size)
        if size + 2 * hops < best:
            best, found = size + 2 * hops, (size, hops)
    return found


def _hops(counts: np.ndarray, size: int) -> int:
    """Returns the rows of each pair in the two hops that hold what is beyond `size`."""
    over = np.maximum(counts - size, 0)
    return -(-max(int(over.sum(0).max()), int(over.sum(1).max())) // len(counts))


def step_of(size: int) -> int:
    """Returns what R is a multiple of, given C.

    Example:
      >>> step_of(3456), step_of(20)
      (54, 1)
    """
    return max(1, size // _STEPS)


def assign(
    owner: np.ndarray, asker: np.ndarray, devices: int, hops: int, step: int = 1
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Returns a relay for each row that is left over, and its places on both hops.

    Args:
      owner: int64 [n], who has the row.
      asker: int64 [n], who needs it.
      devices: D.
      hops: the R to try; it is raised until all fit.
      step: by which it is raised.

    Returns:
      (R, relay [n], first [n]: its place among what the owner sends the relay, second [n]: among
      what the relay sends the asker); places are below R.
    """
    while True:
        fits, relay, first, second = _assign(owner, asker, devices, hops)
        if fits:
            return hops, relay, first, second
        hops += step


@cached_njit(nogil=True)
def _assign(owner, asker, devices, hops):  # type: ignore[no-untyped-def]
    relay = np.empty(owner.shape[0], np.int64)
    first = np.empty(owner.shape[0], np.int64)
    second = np.empty(owner.shape[0], np.int64)
    out = np.zeros((devices, devices), np.int64)
    into = np.zeros((devices, devices), np.int64)
    turn = np.arange(devices)
    for i in range(owner.shape[0]):
        o, a = owner[i], asker[i]
        found = False
        for probe in range(devices):
            m = (turn[o] + probe) % devices
            if out[o, m] < hops and into[m, a] < hops:
                relay[i], first[i], second[i] = m, out[o, m], into[m, a]
                out[o, m] += 1
                into[m, a] += 1
                turn[o] = (m + 1) % devices
                found = True
                break
        if not found:
            return False, relay, first, second
    return True, relay, first, second
