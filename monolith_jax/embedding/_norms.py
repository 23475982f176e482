"""Squared norms of gradients by table, of rows that lie stacked."""

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._stacks import Stack


def table_squares(
    stack: Stack, lookups: StackLookups, gradient: jax.Array, first: jax.Array
) -> jax.Array:
    """Returns the sum of the squared gradients of each table's rows in this block, [1, tables].

    Args:
      stack: the tables, or those that these are biases to.
      lookups: this device's part.
      gradient: [U, dim], summed over duplicates; 0 in the padding.
      first: int32 [], the block's first physical row.
    """
    squares = jnp.sum(jnp.square(gradient), axis=1)
    if len(stack.tables) == 1:
        return jnp.sum(squares)[None, None]
    # Tables start at whole lines, of which even the largest stack has fewer than 2^32.
    layout = stack.layout
    line = (lookups.rows.astype(jnp.uint32) + first.astype(jnp.uint32)) // np.uint32(layout.pack)
    starts = np.array(stack.offsets) // layout.pack
    table = jnp.searchsorted(
        starts.astype(np.uint32), layout.logical_line(line), side="right", method="compare_all"
    )
    sums = jnp.zeros(len(stack.tables), squares.dtype)
    return sums.at[table - 1].add(squares, mode="drop")[None]
