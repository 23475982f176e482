"""Reading and writing rows of a packed array, in the form that each backend does well.

On CPU and GPU a packed array `[lines, 128]` is the same bytes as `[rows, width]`, so the reshape is
free and single rows are read and written. On a TPU memory is tiled by lines and that reshape would
move the whole table: there whole lines are read, the rows picked from them, and written back with
the rows that the batch did not touch as they were. Both forms move the same values.
"""

import jax
import jax.numpy as jnp

from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._none import NONE


def read_rows(table: jax.Array, lookups: StackLookups, layout: Layout, fill: float) -> jax.Array:
    """Returns the rows of this block that a batch touches, [U, dim]; `fill` in the padding.

    Args:
      table: [lines, line_width], one device's block.
      lookups: this device's part.
      layout: of the whole array.
      fill: what stands where `lookups.rows` is padded.
    """
    if lookups.lines is None:
        rows = _take(table.reshape(-1, layout.width), lookups.rows, fill)
    else:
        lines = _take(table, lookups.lines, fill)
        rows = pick(lines.reshape(-1, layout.width), lookups.slot, fill)
    return rows[:, : layout.dim]


def write_rows(
    table: jax.Array, lookups: StackLookups, layout: Layout, new: jax.Array
) -> jax.Array:
    """Returns the block with the touched rows replaced by `new` [U, dim], without the padding."""
    new = _widen(new, layout)
    if lookups.lines is None:
        rows = table.reshape(-1, layout.width)
        return _put(rows, lookups.rows, new).reshape(table.shape)
    old = _take(table, lookups.lines, 0.0).reshape(-1, layout.width)
    nobody = jnp.full(old.shape[0], NONE, jnp.int32)
    order = jnp.arange(new.shape[0], dtype=jnp.int32)
    source = nobody.at[lookups.slot].set(
        order, mode="drop", unique_indices=False, wrap_negative_indices=False
    )
    both = jnp.where((source != NONE)[:, None], pick(new, source, 0.0), old)
    # Its own program: the TPU compiler aborts where it fuses this gather into the scatter (v6e).
    both = jax.lax.optimization_barrier(both.reshape(-1, layout.line_width))
    return _put(table, lookups.lines, both)


def add_rows(table: jax.Array, lookups: StackLookups, layout: Layout, more: jax.Array) -> jax.Array:
    """Returns the block with `more` [U, dim] added to the touched rows."""
    if lookups.lines is not None:
        old = read_rows(table, lookups, layout, 0.0)
        return write_rows(table, lookups, layout, old + more.astype(table.dtype))
    # Windows of lines instead of a reshape: an elementwise pass before or after, as Adam has, then
    # keeps the array's own shape, without which XLA:CPU (0.10) does not update it in place.
    start = jnp.stack(
        [lookups.rows // layout.pack, lookups.rows % layout.pack * layout.width], axis=1
    )
    return jax.lax.scatter_add(
        table,
        start,
        _widen(more, layout).astype(table.dtype),
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=(1,),
            inserted_window_dims=(0,),
            scatter_dims_to_operand_dims=(0, 1),
        ),
        mode="drop",
        unique_indices=True,
        indices_are_sorted=True,
    )


def read_per_row(slot: jax.Array, lookups: StackLookups, fill: float) -> jax.Array:
    """Returns one number per touched row, [U, 1], from a slot [rows of the block]."""
    return _take(slot, lookups.rows, fill)[:, None]


def write_per_row(slot: jax.Array, lookups: StackLookups, new: jax.Array) -> jax.Array:
    """Returns the slot with the touched rows' numbers replaced by `new` [U, 1]."""
    return _put(slot, lookups.rows, new[:, 0])


def pick(rows: jax.Array, index: jax.Array | None, fill: float) -> jax.Array:
    """Returns `rows[index]` with `fill` where the index is `NONE`; repeats are welcome.

    The derivative with respect to `rows` sums over repeats, and nothing comes from `NONE`.
    """
    return rows.at[index].get(mode="fill", fill_value=fill, wrap_negative_indices=False)


def _widen(rows: jax.Array, layout: Layout) -> jax.Array:
    """Returns [U, dim] as [U, width], zeros behind."""
    if layout.width == layout.dim:
        return rows
    return jnp.pad(rows, ((0, 0), (0, layout.width - layout.dim)))


def _take(rows: jax.Array, index: jax.Array, fill: float) -> jax.Array:
    return rows.at[index].get(
        mode="fill",
        fill_value=fill,
        unique_indices=True,
        indices_are_sorted=True,
        wrap_negative_indices=False,
    )


def _put(rows: jax.Array, index: jax.Array, new: jax.Array) -> jax.Array:
    return rows.at[index].set(
        new,
        mode="drop",
        unique_indices=True,
        indices_are_sorted=True,
        wrap_negative_indices=False,
    )
