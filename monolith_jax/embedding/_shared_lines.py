"""Rows out of the lines that they share, and back into them, in arrays no narrower than lines.

A reshape from lines to rows of 4 lanes can take a TPU 32 times the memory, as it pads those to 128
too. So a row's line is taken whole and halved until the row is left. On the way back what changed
in a row is set among zeros, half by half, and added to its line, as integers that are the floats'
bits: rows of one line have no lane in common, so that sums are exact.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from monolith_jax.embedding._access import pick
from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._none import NONE


def rows_of_lines(lines: jax.Array, slot: jax.Array, layout: Layout) -> jax.Array:
    """Returns rows, [U, width]; 0 where `slot` is `NONE`.

    Args:
      lines: [n, line_width].
      slot: int32 [U], the rows' places among all rows of the lines.
      layout: how rows lie in lines.
    """
    found = pick(lines, _line(slot, layout), 0.0)
    for half, upper in reversed(list(_halves(slot, layout))):
        found = jnp.where(upper, found[:, half:], found[:, :half])
    return found


def with_rows(
    lines: jax.Array, slot: jax.Array, layout: Layout, old: jax.Array, new: jax.Array
) -> jax.Array:
    """Returns the lines with rows replaced, none where `slot` is `NONE`.

    Args:
      lines: [n, line_width], float32.
      slot: int32 [U], as in `rows_of_lines`, ascending, no two alike.
      layout: how rows lie in lines.
      old: [U, width], as `rows_of_lines` found them.
      new: [U, width].
    """
    change = _bits(new) - _bits(old)
    for _, upper in _halves(slot, layout):
        none = jnp.zeros_like(change)
        both = [jnp.where(upper, none, change), jnp.where(upper, change, none)]
        change = jnp.concatenate(both, axis=1)
    changed = (
        _bits(lines)
        .at[_line(slot, layout)]
        .add(change, mode="drop", indices_are_sorted=True, wrap_negative_indices=False)
    )
    return jax.lax.bitcast_convert_type(changed, jnp.float32)


def _line(slot: jax.Array, layout: Layout) -> jax.Array:
    return jnp.where(slot == NONE, NONE, slot // layout.pack)


def _halves(slot: jax.Array, layout: Layout) -> Iterator[tuple[int, jax.Array]]:
    """Yields (lanes of half a part of a line, whether each row lies in its upper half, [U, 1])."""
    half = layout.width
    while half < layout.line_width:
        yield half, (slot & (half // layout.width) != 0)[:, None]
        half *= 2


def _bits(rows: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(rows, jnp.int32)
