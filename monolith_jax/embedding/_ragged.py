"""The exchange without padding: each pair of devices sends what it has, no more.

The bucket exchange (`_combine`, `_relay`) gives every pair of devices as many places as the
busiest ones need, or nearly, and what is beyond that takes two hops more. Among hundreds of devices
a pair has but some fifty rows, and the busiest one many more than the mean. TPUs have a ragged
all-to-all, to which each device says where the rows for every other one start and how many they
are; all of that is known on the host when the batch is. Nothing can overflow: the room for what a
device sends and receives is taken from the batch.

Rows travel in lines of 128 lanes, which is how a TPU moves them, so that the rows of a pair are
filled up to whole lines. XLA:CPU does not implement the operation.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.embedding._access import pick
from monolith_jax.embedding._layout import Layout

Exchange = Literal["auto", "buckets", "ragged"]

KINDS = ("TPU v4", "TPU v5", "TPU v5p", "TPU v6 lite", "TPU v6e", "TPU7x")
"""`device_kind` of the chips that have it; the compiler refuses it on v5e beyond 16 of them."""

NARROW_DEVICES, WIDE_DEVICES = 64, 256
"""From here on the compiled program is the better one, for rows below 128 lanes and for wider ones:
`docs/engine.md` has the table."""

LEAST_WIDTH = 16
"""Lanes of a row; of narrower ones a pair's last line would be mostly empty."""


def is_ragged(exchange: Exchange, layout: Layout, devices: int, kind: str) -> bool:
    """Returns whether a stack's rows take the ragged exchange.

    Args:
      exchange: "auto": on chips that have it, from as many devices on as it pays.
      layout: the stack's.
      devices: their number.
      kind: the `device_kind` of each.

    Example:
      >>> layout = Layout(rows=1000, dim=32, shards=1024)
      >>> [is_ragged("auto", layout, devices, "TPU v5") for devices in (8, 512)]
      [False, True]
    """
    if devices == 1 or exchange == "buckets":
        return False
    if exchange == "ragged":
        return True
    enough = NARROW_DEVICES if layout.pack > 1 else WIDE_DEVICES
    return kind in KINDS and devices >= enough and layout.width >= LEAST_WIDTH


def sizes(
    counts: np.ndarray, pack: int, *, least: int, most: int, room: tuple[int, int] = (0, 0)
) -> tuple[int, int]:
    """Returns (S, R), the rows that a device has room to send and to receive, whole lines.

    Args:
      counts: int64 [owners, askers], distinct rows asked for.
      pack: rows of a line.
      least: no smaller size is worth a program of its own.
      most: the most distinct rows that an asker can ask for.
      room: the sizes of a program that is there already.

    Example:
      >>> sizes(np.full((8, 8), 500), 4, least=2048, most=10_000)
      (4096, 4096)
    """
    whole = -(-counts // pack) * pack
    filling = len(counts) * (pack - 1)
    found = []
    for needed, bound, there in (
        (whole.sum(1).max(), len(counts) * most + filling, room[0]),
        (whole.sum(0).max(), most + filling, room[1]),
    ):
        size = there if there >= max(1, needed) else _rounded(int(needed), least, bound)
        found.append(-(-size // pack) * pack)
    return found[0], found[1]


def _rounded(needed: int, least: int, most: int) -> int:
    """Returns one of sixteen sizes an octave: a total varies little from batch to batch.

    Example:
      >>> [_rounded(n, 2048, 100_000) for n in (7, 2049, 27_000, 99_000)]
      [2048, 2176, 27648, 100000]
    """
    wanted = max(needed, least)
    step = 1 << max(0, wanted.bit_length() - 5)
    return max(1, min(-(-wanted // step) * step, most))


def starts(counts: np.ndarray, pack: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (leaves, lines, arrives), in lines: where each pair's rows start, and what they fill.

    Args:
      counts: int64 [owners, askers], distinct rows asked for.
      pack: rows of a line.

    Returns:
      int64 [owners, askers] each: the first line among what the owner sends, how many lines there
      are, and the first line among what the asker receives.

    Example:
      >>> leaves, lines, arrives = starts(np.array([[1, 2], [0, 1]]), pack=1)
      >>> leaves.tolist(), arrives.tolist()
      ([[0, 1], [0, 0]], [[0, 0], [1, 2]])
    """
    lines = -(-counts // pack)
    return np.cumsum(lines, axis=1) - lines, lines, np.cumsum(lines, axis=0) - lines


def parts(
    leaves: np.ndarray, lines: np.ndarray, arrives: np.ndarray, mine: np.ndarray
) -> np.ndarray:
    """Returns the lists of `StackLookups.parts`, int32 [D, 6, D], zeros for devices not `mine`.

    Args:
      leaves: as `starts` gives them, and `lines` and `arrives`.
      lines: see there.
      arrives: see there.
      mine: bool [D].
    """
    found = np.zeros((len(mine), 6, len(mine)), np.int32)
    both_ways = leaves, lines, arrives, arrives.T, lines.T, leaves.T
    found[mine] = np.stack([one[mine] for one in both_ways], axis=1)
    return found


def receive(rows: jax.Array, lookups: Any, layout: Layout, axis: str) -> jax.Array:
    """Returns the rows that this device's examples need, [R, dim]; the transpose brings gradients.

    Args:
      rows: [U, dim], the touched rows of this device's block.
      lookups: this device's part (`StackLookups`), with `parts`.
      layout: the stack's.
      axis: the mesh axis.
    """
    leaving = pick(rows, lookups.send[0], 0.0)
    leaving = jnp.pad(leaving, ((0, 0), (0, layout.width - layout.dim)))
    lines = leaving.reshape(-1, layout.line_width)
    parts = lookups.parts[0]
    found = _exchange(lines, parts[:3], parts[3:], lookups.received // layout.pack, axis)
    return found.reshape(-1, layout.width)[:, : layout.dim]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _exchange(
    lines: jax.Array, there: jax.Array, back: jax.Array, received: int, axis: str
) -> jax.Array:
    """Returns the lines that other devices send this one, [received, lanes], zeros behind.

    Its transpose sends each line's gradient back to where the line came from: the same operation
    with the two ends exchanged, which the host has laid out too, so that none is worked out here.

    Args:
      lines: [n, lanes], what this device sends.
      there: int32 [3, D], where what goes to each device starts, how much it is, and where it
        arrives.
      back: int32 [3, D], likewise for the way back: where what came from each device lies here,
        how much it is, and where it started there.
      received: lines that there is room for.
      axis: the mesh axis.
    """
    return _ragged(lines, there, back, received, axis)


def _ragged(lines: jax.Array, there: jax.Array, back: jax.Array, size: int, axis: str) -> jax.Array:
    output = jnp.zeros((size, lines.shape[1]), lines.dtype)
    return jax.lax.ragged_all_to_all(
        lines, output, there[0], there[1], there[2], back[1], axis_name=axis
    )


def _forward(
    lines: jax.Array, there: jax.Array, back: jax.Array, received: int, axis: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, int]]:
    return _ragged(lines, there, back, received, axis), (there, back, lines.shape[0])


def _backward(
    received: int, axis: str, kept: tuple[jax.Array, jax.Array, int], gradient: jax.Array
) -> tuple[jax.Array, None, None]:
    there, back, size = kept
    return _ragged(gradient, back, there, size, axis), None, None


_exchange.defvjp(_forward, _backward)
