"""A batch's rows by its ids, and their gradients summed: two linear functions, transposed.

Each is a primitive of jax's, so that everything jax does with functions is there for them, of any
order: a custom derivative has either no forward mode or no choice of the transpose.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from monolith_jax.embedding._cpu import kernels
from monolith_jax.embedding._cpu.calls import attributes, kernel
from monolith_jax.embedding._cpu.register import READ, SUM, register


def pick(
    rows: jax.Array,
    index: jax.Array,
    tables: Sequence[int] | None = None,
    after: Sequence[jax.Array] = (),
) -> jax.Array:
    """Returns `rows[index]`, an example's side by side, with zeros where the index is beyond them.

    The derivative with respect to `rows` sums over repeats, in the order of the examples, and
    nothing comes from zeros.

    Args:
      rows: [n, unit], of any dtype.
      index: int32 [batch, ids]; repeats are welcome.
      tables: for each column of the index the number of its table, any numbers: columns of
        different tables have no row in common, and are summed at once. None: all of one.
      after: arrays that are computed before the transpose is; they change no number.

    Returns:
      [batch, ids * unit].
    """
    tables = (0,) * index.shape[1] if tables is None else tuple(tables)
    found: jax.Array = _PICK.bind(rows, index, *after, count=rows.shape[0], tables=tables)
    return found


def _pick(
    rows: jax.Array, index: jax.Array, *after: jax.Array, count: int, tables: tuple[int, ...]
) -> jax.Array:
    batch, ids = index.shape
    unit = rows.shape[1]
    if not register():
        found = rows.at[index].get(mode="fill", fill_value=0, wrap_negative_indices=False)
        return found.reshape(batch, ids * unit)
    read = kernel(READ, (batch, ids * unit), rows.dtype)
    picked: jax.Array = read(rows, index, **attributes(rows, unit, kernels.ZERO))
    return picked


def _sum(
    wide: jax.Array, index: jax.Array, *after: jax.Array, count: int, tables: tuple[int, ...]
) -> jax.Array:
    """Returns the sum of the rows that each of `count` is asked for, [count, unit]."""
    batch, ids = index.shape
    unit = wide.shape[1] // ids
    zeros = jnp.zeros((count, unit), wide.dtype)
    if wide.dtype != jnp.float32 or not register():
        rows = wide.reshape(batch, ids, unit)
        return zeros.at[index].add(rows, mode="drop", wrap_negative_indices=False)
    add = kernel(SUM, zeros.shape, zeros.dtype, input_output_aliases={0: 0})
    columns = jnp.asarray(_columns(tables))
    summed: jax.Array = add(
        zeros, index, wide, columns, *after, **attributes(zeros, unit, kernels.DROP)
    )
    return summed


def _columns(tables: Sequence[int]) -> np.ndarray:
    """Returns what `kernels.sum_rows` wants to know of columns.

    Example:
      >>> _columns([5, 2, 5]).tolist()
      [[0, 1, 0], [2, 3, 3]]
    """
    first: dict[int, int] = {}
    later: dict[int, int] = {}
    heads = [first.setdefault(table, i) for i, table in enumerate(tables)]
    links = []
    for i in reversed(range(len(tables))):
        links.append(later.get(tables[i], len(tables)))
        later[tables[i]] = i
    return np.array([heads, links[::-1]], np.int32)


def _picked(rows: Any, index: Any, *after: Any, count: int, tables: tuple[int, ...]) -> Any:
    return rows.update(shape=(index.shape[0], index.shape[1] * rows.shape[1]))


def _summed(wide: Any, index: Any, *after: Any, count: int, tables: tuple[int, ...]) -> Any:
    return wide.update(shape=(count, wide.shape[1] // index.shape[1]))


def _primitive(name: str, run: Any, shape: Any) -> Any:
    """Returns a primitive that is linear in its first argument, without its transpose."""
    primitive = Primitive(name)

    def jvp(primals: Any, tangents: Any, **params: Any) -> tuple[Any, Any]:
        tangent = ad.instantiate_zeros(tangents[0])
        out = primitive.bind(*primals, **params)
        return out, primitive.bind(tangent, *primals[1:], **params)

    def batched(arguments: Any, axes: Any, **params: Any) -> tuple[Any, int]:
        each = [
            jnp.moveaxis(x, axis, 0)
            for x, axis in zip(arguments, axes, strict=True)
            if axis is not None
        ]

        def one(each: Any) -> Any:
            mapped = iter(each)
            mine = [
                x if axis is None else next(mapped) for x, axis in zip(arguments, axes, strict=True)
            ]
            return primitive.bind(*mine, **params)

        return jax.lax.map(one, each), 0

    primitive.def_impl(jax.jit(run, static_argnames=("count", "tables")))
    primitive.def_abstract_eval(shape)
    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=False))
    return primitive


def _transpose(
    other: Any, cotangent: Any, linear: Any, index: Any, *after: Any, **params: Any
) -> Any:
    return [other.bind(cotangent, index, *after, **params), None, *(None for _ in after)]


_PICK = _primitive("monolith_jax_pick", _pick, _picked)
_SUM = _primitive("monolith_jax_sum", _sum, _summed)
ad.primitive_transposes[_PICK] = partial(_transpose, _SUM)
ad.primitive_transposes[_SUM] = partial(_transpose, _PICK)
