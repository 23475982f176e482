"""How jax calls the kernels."""

from typing import Any

import jax
import numpy as np


def kernel(name: str, shape: tuple[int, ...], dtype: Any, **options: Any) -> Any:
    """Returns a kernel as a function of arrays and attributes; options as of `jax.ffi.ffi_call`."""
    result = jax.ShapeDtypeStruct(shape, dtype)
    return jax.ffi.ffi_call(name, result, vmap_method="sequential", **options)


def attributes(
    table: jax.Array, unit: int, beyond: int, first: bool = False
) -> dict[str, np.int64]:
    """Returns what kernels want to know, which they find in the order of the names.

    Args:
      table: of rows of `unit`.
      unit: see there.
      beyond: what is done for an id beyond the rows (`kernels`).
      first: whether a step has written nothing yet (`places`).
    """
    size, rows = unit * table.dtype.itemsize, table.size // unit
    values = {"beyond": beyond, "first": first, "rows": rows, "size": size}
    return {name: np.int64(value) for name, value in values.items()}
