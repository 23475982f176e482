"""The lookups of a batch that is not there, for SparseCores: as `expected`, in shapes alone."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.embedding.sparsecore import SparseCoreEngine
from monolith_jax.embedding.sparsecore.limits import rung
from monolith_jax.embedding.sparsecore.lookups import CoreLookups

_SIGMAS = 4.5
"""The fullest of many pairs of SparseCores lies so many standard deviations above their mean."""


def expected_core_lookups(engine: SparseCoreEngine) -> dict[str, CoreLookups]:
    """Returns the lookups of one batch as `jax.ShapeDtypeStruct`s, without shardings.

    Ids are taken as drawn evenly from their table, every list being full.
    """
    return {stack.name: _stack(engine, stack) for stack in engine.stacks}


def _stack(engine: SparseCoreEngine, stack: Any) -> CoreLookups:
    layout, batch = engine.layouts[stack.name], engine.batch_size
    cores = layout.total_cores
    sizes = {table.name: table.vocab_size for table in stack.tables}
    mean = most = total = 0.0
    for part in stack.features:
        ids = batch // cores * part.max_length
        # A table of few rows lies on few SparseCores, which then get all of its ids.
        owners = min(sizes[part.table], cores)
        total += ids
        mean += ids / cores
        most += ids / owners - ids / cores if owners < cores else 0.0
    fullest = mean + _SIGMAS * math.sqrt(mean)
    ids = rung(math.ceil(fullest + most))
    rows = min(rung(math.ceil(min(fullest, layout.rows_per_core))), engine.cores.rows, ids)
    # Each owner's share is rounded up to 8, half of that on average.
    shares = min(total, cores) * 3.5
    buffer = rung(math.ceil(total + shares), 256)
    return CoreLookups(
        pointers=_int32(cores * max(cores, 8)),
        rows=_int32(cores * buffer),
        samples=_int32(cores * buffer),
        gains=jax.ShapeDtypeStruct((cores * buffer,), jnp.float32),
        masks={
            part.feature.mask_name: jax.ShapeDtypeStruct((batch, part.max_length), jnp.bool_)
            for part in stack.features
            if part.feature.sequence
        },
        max_ids=ids,
        max_rows=rows,
    )


def _int32(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size,), jnp.int32)
