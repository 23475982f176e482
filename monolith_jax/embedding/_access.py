"""Reading and writing rows of packed arrays, in the form that each backend does well.

On CPU and GPU a packed array `[lines, 128]` is the same bytes as `[rows, width]`, so the reshape is
free and single rows are read and written. On a TPU memory is tiled by lines and that reshape would
move the whole table: there units are moved, whole lines or, where the chip can, the row's own words
(`_reach`). A unit of several rows is read, the rows picked from it, and written back with the rows
that the batch did not touch as they were. All forms move the same values.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._reach import Reach
from monolith_jax.optimizers import fuses_outputs


def read_rows(
    tables: Sequence[jax.Array],
    lookups: StackLookups,
    layout: Layout,
    reach: Reach,
    fills: Sequence[float],
    first: bool = False,
) -> list[jax.Array]:
    """Returns the rows that a batch touches, [U, dim] of each array.

    Args:
      tables: [lines, line_width] each, one device's blocks.
      lookups: this device's part.
      layout: of the whole arrays.
      reach: how the backend reaches them.
      fills: for each array, what may stand where `lookups.rows` is padded; where a row is reached
        alone, or by whole lines, the block's last one stands there, which costs nothing.
      first: whether this is the first that a program does (CPUs want to know: `_cpu.places`).
    """
    if lookups.lines is None:
        found = take_units(tables, lookups.rows, reach, fills, first)
    else:
        found = [
            pick(_rows_of_units(table, lookups.lines, layout, reach), lookups.slot, fill)
            for table, fill in zip(tables, fills, strict=True)
        ]
    return [rows[:, : layout.dim] for rows in found]


def write_rows(
    tables: Sequence[jax.Array],
    lookups: StackLookups,
    layout: Layout,
    reach: Reach,
    new: Sequence[jax.Array],
) -> list[jax.Array]:
    """Returns the blocks with the touched rows replaced by `new` [U, dim], without the padding."""
    new = [_widen(rows, layout) for rows in new]
    if lookups.lines is None:
        return put_units(tables, lookups.rows, reach, new)
    nobody = jnp.full(lookups.lines.shape[0] * reach.rows, NONE, jnp.int32)
    order = jnp.arange(lookups.rows.shape[0], dtype=jnp.int32)
    source = nobody.at[lookups.slot].set(
        order, mode="drop", unique_indices=False, wrap_negative_indices=False
    )
    units = []
    for table, rows in zip(tables, new, strict=True):
        old = _rows_of_units(table, lookups.lines, layout, reach)
        both = jnp.where((source != NONE)[:, None], pick(rows, source, 0.0), old)
        # Its own program: the TPU compiler aborts where it fuses this gather into the scatter (v6e)
        units.append(jax.lax.optimization_barrier(both.reshape(-1, reach.unit)))
    return put_units(tables, lookups.lines, reach, units)


def add_rows(
    table: jax.Array, lookups: StackLookups, layout: Layout, reach: Reach, more: jax.Array
) -> jax.Array:
    """Returns the block with `more` [U, dim] added to the touched rows."""
    if reach.form != "rows":
        (old,) = read_rows([table], lookups, layout, reach, [0.0])
        (new,) = write_rows([table], lookups, layout, reach, [old + more.astype(table.dtype)])
        return new
    # Windows of lines instead of a reshape: an elementwise pass before or after, as Adam has, then
    # keeps the array's own shape, without which XLA:CPU (0.10) does not update it in place.
    own, more = _own(lookups.rows, more)
    start = jnp.stack([own // layout.pack, own % layout.pack * layout.width], axis=1)
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


def read_per_row(slot: jax.Array, lookups: StackLookups) -> jax.Array:
    """Returns one number per touched row, [U, 1], from a slot [rows of the block]."""
    return _take(slot, lookups.rows)[:, None]


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


def _rows_of_units(table: jax.Array, units: jax.Array, layout: Layout, reach: Reach) -> jax.Array:
    """Returns all rows of some units of one array, [UL * rows of a unit, width].

    By a program of its own, so that the compiler finds the second reading of the same units to be
    the first.
    """
    return take_units([table], units, reach, [0.0])[0].reshape(-1, layout.width)


def take_units(
    tables: Sequence[jax.Array],
    index: jax.Array,
    reach: Reach,
    fills: Sequence[float],
    first: bool = False,
) -> list[jax.Array]:
    """Returns units of arrays of equal shape, [U, unit] each.

    Where the index is padding: the fill if a kernel reads them, else the last unit.
    """
    if not tables:
        return []
    if reach.kernel:
        from monolith_jax.embedding._dma import read_units

        found = read_units(tables, index, reach.unit, interpret=reach.interpret)
        there = (index < tables[0].size // reach.unit)[:, None]
        return [jnp.where(there, rows, fill) for rows, fill in zip(found, fills, strict=True)]
    if reach.ahead:
        from monolith_jax.embedding._cpu.rows import take

        return [take(table.reshape(-1, reach.unit), index, first) for table in tables]
    return [_take(table.reshape(-1, reach.unit), index) for table in tables]


def put_units(
    tables: Sequence[jax.Array], index: jax.Array, reach: Reach, new: Sequence[jax.Array]
) -> list[jax.Array]:
    """Returns the arrays with units replaced by `new`, [U, unit] each, without the padding."""
    if reach.kernel:
        from monolith_jax.embedding._dma import write_units

        return write_units(tables, index, new, interpret=reach.interpret)
    if reach.ahead:
        from monolith_jax.embedding._cpu.rows import put

        return [put(table, index, rows) for table, rows in zip(tables, new, strict=True)]
    return [
        _put(table.reshape(-1, reach.unit), index, rows).reshape(table.shape)
        for table, rows in zip(tables, new, strict=True)
    ]


def _take(rows: jax.Array, index: jax.Array) -> jax.Array:
    """Returns `rows[index]`, the last one where the index is beyond.

    A fill would be a mask and one more pass over all that is read, on CPU a tenth of a whole step.
    """
    return rows.at[index].get(mode="clip", indices_are_sorted=True, wrap_negative_indices=False)


def _put(rows: jax.Array, index: jax.Array, new: jax.Array) -> jax.Array:
    index, new = _own(index, new)
    return rows.at[index].set(
        new,
        mode="drop",
        unique_indices=True,
        indices_are_sorted=True,
        wrap_negative_indices=False,
    )


def _own(index: jax.Array, new: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns both as they are; to XLA the indices are others than those of other scatters.

    Where XLA:CPU fuses outputs it would merge two scatters of the same indices, and cannot compile
    what comes of it.
    """
    if not fuses_outputs():
        return index, new
    index, new = jax.lax.optimization_barrier((index, new))
    return index, new
