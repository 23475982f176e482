"""The door to the kernels: rows by their ids, as jax sees it."""

from functools import partial
from typing import Any

import jax
import numpy as np

from monolith_jax.embedding._cpu import kernels


def take(rows: jax.Array, index: jax.Array) -> jax.Array:
    """Returns `rows[index]`, [U, unit]; the first or last row where the index is beyond them.

    Args:
      rows: [n, unit], of any dtype.
      index: int32 [U].
    """
    return _read(rows, index[:, None], kernels.CLIP)[:, 0]


def pick(rows: jax.Array, index: jax.Array) -> jax.Array:
    """Returns `rows[index]`, [batch, ids, unit], with zeros where the index is beyond the rows.

    The derivative with respect to `rows` sums over repeats, and nothing comes from zeros.

    Args:
      rows: [n, unit], of any dtype.
      index: int32 [batch, ids]; repeats are welcome.
    """
    return _read(rows, index, kernels.ZERO)


@jax.custom_jvp
def put(table: jax.Array, index: jax.Array, new: jax.Array) -> jax.Array:
    """Returns the table with rows replaced, in place where its memory is not needed elsewhere.

    Args:
      table: [lines, line_width], of any dtype: rows of `unit`, one after the other.
      index: int32 [U], rows, no two alike; what is beyond the table is left out.
      new: [U, unit], of the table's dtype.
    """
    if not kernels.register():
        return _xla_put(table, index, new)
    write = _call(kernels.WRITE, table, input_output_aliases={0: 0})
    # Three dimensions, as XLA's own scatter takes it: the loop before it is slower with two.
    written: jax.Array = write(
        table, index, new[:, None], **_attributes(table, new.shape[1], kernels.DROP)
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


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _read(rows: jax.Array, index: jax.Array, beyond: int) -> jax.Array:
    if not kernels.register():
        return _xla_read(rows, index, beyond)
    unit = rows.shape[1]
    read = _call(kernels.READ, jax.ShapeDtypeStruct((*index.shape, unit), rows.dtype))
    found: jax.Array = read(rows, index, **_attributes(rows, unit, beyond))
    return found


@_read.defjvp
def _read_jvp(beyond: int, primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return _read(*primals, beyond), _xla_read(tangents[0], primals[1], beyond)


def _xla_read(rows: jax.Array, index: jax.Array, beyond: int) -> jax.Array:
    mode = {kernels.CLIP: "clip", kernels.ZERO: "fill"}[beyond]
    return rows.at[index].get(mode=mode, fill_value=0, wrap_negative_indices=False)


def _call(name: str, result: Any, **options: Any) -> Any:
    result = jax.ShapeDtypeStruct(result.shape, result.dtype)
    return jax.ffi.ffi_call(name, result, vmap_method="sequential", **options)


def _attributes(table: jax.Array, unit: int, beyond: int) -> dict[str, np.int64]:
    size, rows = unit * table.dtype.itemsize, table.size // unit
    return {"beyond": np.int64(beyond), "rows": np.int64(rows), "size": np.int64(size)}
