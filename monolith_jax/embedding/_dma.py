"""Kernels that move parts of a table's lines, or whole ones, by DMA.

XLA's gather and scatter move whole lines of 128 lanes: a row of 32 costs four times its bytes, a
number alone 128 times. A DMA moves as few as 8 lanes where the memory's words are 32 bytes, and
whole lines of 128 everywhere. The kernels walk over the indices in blocks;
the copies of a block are all started before the first is waited for, and what is padding is not
moved. A table is one line after the other in memory, `pack` units in each:

    unit u lies in lanes  u % pack * unit  and the following of line  u // pack

They were compiled for v5p, v6e and TPU7x, with whole lines for v4 and v5e too, and interpreted on
CPU, not timed. v4 and v5e move 512 bytes at least: there Mosaic refuses shorter copies ("must be
divisible by 512 bytes").
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

BLOCK = 512
"""Units of one turn of the grid; of 4 arrays in two buffers each, 2 MiB of the chip's memory."""


def read_units(
    tables: Sequence[jax.Array], index: jax.Array, unit: int, *, interpret: bool = False
) -> list[jax.Array]:
    """Returns units of arrays of equal shape, each [U, unit]; anything where the index is padding.

    Args:
      tables: [lines, line_width], float32.
      index: int32 [U], units; padding lies beyond the last.
      unit: lanes, a divisor of `line_width` from 8 on.
      interpret: run the kernel's operations one by one, where there is no TPU.
    """
    count, size = len(tables), index.shape[0]
    index, blocks = _in_blocks(index, tables[0].size // unit)

    def kernel(index: Any, *refs: Any) -> None:
        held, found, done = refs[:count], refs[count : 2 * count], refs[2 * count]

        def copies(at: Any, k: Any) -> list[Any]:
            pairs = zip(held, found, strict=True)
            return [pltpu.make_async_copy(table.at[at], out.at[k], done) for table, out in pairs]

        _move(index, unit, tables[0].shape, copies)

    found: list[jax.Array] = pl.pallas_call(
        kernel,
        grid=(blocks,),
        in_specs=[_indices(), *[_whole()] * count],
        out_specs=[_rows(unit)] * count,
        out_shape=[jax.ShapeDtypeStruct((size, unit), table.dtype) for table in tables],
        scratch_shapes=[pltpu.SemaphoreType.DMA(())],
        interpret=interpret,
        name="read_units",
    )(index, *_held(tables, interpret))
    return found


def write_units(
    tables: Sequence[jax.Array],
    index: jax.Array,
    new: Sequence[jax.Array],
    *,
    interpret: bool = False,
) -> list[jax.Array]:
    """Returns the arrays with units replaced, in place where they are donated.

    Args:
      tables: [lines, line_width], float32.
      index: int32 [U], units, no two alike; padding lies beyond the last and is not written.
      new: for each array, [U, unit].
      interpret: as in `read_units`.
    """
    count, unit = len(tables), new[0].shape[1]
    index, blocks = _in_blocks(index, tables[0].size // unit)

    def kernel(index: Any, *refs: Any) -> None:
        given, held, done = refs[:count], refs[2 * count : 3 * count], refs[3 * count]

        def copies(at: Any, k: Any) -> list[Any]:
            pairs = zip(given, held, strict=True)
            return [pltpu.make_async_copy(rows.at[k], table.at[at], done) for rows, table in pairs]

        _move(index, unit, tables[0].shape, copies)

    written: list[jax.Array] = pl.pallas_call(
        kernel,
        grid=(blocks,),
        in_specs=[_indices(), *[_rows(unit)] * count, *[_whole()] * count],
        out_specs=[_whole()] * count,
        out_shape=[pltpu.HBM(table.shape, table.dtype) for table in tables],
        scratch_shapes=[pltpu.SemaphoreType.DMA(())],
        input_output_aliases={1 + count + i: i for i in range(count)},
        interpret=interpret,
        name="write_units",
    )(index, *new, *_held(tables, interpret))
    return written


def _move(
    index: Any, unit: int, shape: tuple[int, ...], copies: Callable[[Any, Any], list[Any]]
) -> None:
    """Starts the copies of a block's units, then waits for them all."""
    pack = shape[1] // unit
    limit = shape[0] * pack

    def each(start: bool, k: Any, _: Any) -> None:
        at = index[k]

        @pl.when(at < limit)
        def _move_one() -> None:
            lanes = pl.ds(pl.multiple_of(at % pack * unit, unit), unit)
            for copy in copies((at // pack, lanes), k):
                if start:
                    copy.start()
                else:
                    copy.wait()

    jax.lax.fori_loop(0, BLOCK, partial(each, True), None)
    jax.lax.fori_loop(0, BLOCK, partial(each, False), None)


def _in_blocks(index: jax.Array, padding: int) -> tuple[jax.Array, int]:
    """Returns the indices padded to whole blocks, and the number of these."""
    blocks = max(1, -(-index.shape[0] // BLOCK))
    return jnp.pad(index, (0, blocks * BLOCK - index.shape[0]), constant_values=padding), blocks


def _indices() -> Any:
    return pl.BlockSpec((BLOCK,), lambda i: (i,), memory_space=pltpu.SMEM)


def _rows(unit: int) -> Any:
    return pl.BlockSpec((BLOCK, unit), lambda i: (i, 0))


def _whole() -> Any:
    return pl.BlockSpec(memory_space=pltpu.HBM)


def _held(tables: Sequence[jax.Array], interpret: bool) -> list[jax.Array]:
    """Returns the tables as they are, to stay in the large memory.

    XLA takes a kernel to read its operands whole, and would carry tables of tens of MB into the
    chip's own memory for it, and back.
    """
    if interpret:
        return list(tables)
    return [pltpu.with_memory_space_constraint(table, pltpu.HBM) for table in tables]
