"""Rows of tables by their numbers, read and written, as jax sees it."""

from functools import partial
from typing import Any

import jax

from monolith_jax.embedding._cpu import kernels
from monolith_jax.embedding._cpu.calls import attributes, kernel
from monolith_jax.embedding._cpu.register import READ, WRITE, register


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def take(rows: jax.Array, index: jax.Array, first: bool = False) -> jax.Array:
    """Returns `rows[index]`, [U, unit]; the first or last row where the index is beyond them.

    Args:
      rows: [n, unit], of any dtype.
      index: int32 [U].
      first: whether it is the first that a program does with its memory (`places`).
    """
    if not register():
        return _xla_take(rows, index)
    unit = rows.shape[1]
    read = kernel(READ, (index.shape[0], unit), rows.dtype)
    taken: jax.Array = read(rows, index[:, None], **attributes(rows, unit, kernels.CLIP, first))
    return taken


@take.defjvp
def _take_jvp(first: bool, primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return take(*primals, first), _xla_take(tangents[0], primals[1])


def _xla_take(rows: jax.Array, index: jax.Array) -> jax.Array:
    return rows.at[index].get(mode="clip", wrap_negative_indices=False)


@jax.custom_jvp
def put(table: jax.Array, index: jax.Array, new: jax.Array) -> jax.Array:
    """Returns the table with rows replaced, in place where its memory is not needed elsewhere.

    Args:
      table: [lines, line_width], of any dtype: rows of `unit`, one after the other.
      index: int32 [U], rows, no two alike; what is beyond the table is left out.
      new: [U, unit], of the table's dtype.
    """
    if not register():
        return _xla_put(table, index, new)
    write = kernel(WRITE, table.shape, table.dtype, input_output_aliases={0: 0})
    # Three dimensions, as XLA's own scatter takes it: the loop before it is slower with two.
    written: jax.Array = write(
        table, index, new[:, None], **attributes(table, new.shape[1], kernels.DROP)
    )
    return written


@put.defjvp
def _put_jvp(primals: tuple[Any, Any, Any], tangents: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    _, index, _ = primals
    return put(*primals), _xla_put(tangents[0], index, tangents[2])


def _xla_put(table: jax.Array, index: jax.Array, new: jax.Array) -> jax.Array:
    rows = table.reshape(-1, new.shape[1])
    written = rows.at[index].set(new, mode="drop", unique_indices=True, wrap_negative_indices=False)
    return written.reshape(table.shape)
