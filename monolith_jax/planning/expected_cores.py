"""The lookups of a batch that is not there, for SparseCores: as `expected`, in shapes alone."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.embedding.sparsecore import SparseCoreEngine
from monolith_jax.embedding.sparsecore.layout import CoreLayout
from monolith_jax.embedding.sparsecore.limits import rung
from monolith_jax.embedding.sparsecore.lookups import CoreLookups
from monolith_jax.planning.distinct import distinct

_SIGMAS = 4.5
"""The fullest of many pairs of SparseCores lies so many standard deviations above their mean."""

_ROUNDS = 4
"""Rounds of lines, one for each shard, that stand for a table of more."""


def expected_core_lookups(engine: SparseCoreEngine) -> dict[str, CoreLookups]:
    """Returns the lookups of one batch as `jax.ShapeDtypeStruct`s, without shardings.

    Ids are taken as drawn evenly from their table, every list being full.
    """
    return {stack.name: _stack(engine, stack) for stack in engine.stacks}


def _stack(engine: SparseCoreEngine, stack: Any) -> CoreLookups:
    layout, batch = engine.layouts[stack.name], engine.batch_size
    cores = layout.total_cores
    shares = {table.name: _shares(stack, layout, table.name) for table in stack.tables}
    draws = dict.fromkeys(shares, 0)
    for part in stack.features:
        draws[part.table] += batch // cores * part.max_length
    ids_of, rows_of = np.zeros(cores), np.zeros(cores)
    for table in stack.tables:
        share, drawn = shares[table.name], draws[table.name]
        ids_of += drawn * share
        for owner in np.flatnonzero(share):
            rows = max(1, round(table.vocab_size * share[owner]))
            rows_of[owner] += distinct(rows, drawn * share[owner])
    ids = rung(_fullest(ids_of))
    rows = min(rung(_fullest(rows_of)), engine.cores.rows, ids)
    # Each owner's share is rounded up to 8, by half of that on average.
    total = sum(draws.values())
    buffer = rung(math.ceil(total + min(total, cores) * 3.5), 256)
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


def _shares(stack: Any, layout: CoreLayout, name: str) -> np.ndarray:
    """Returns the part of a table's rows that each SparseCore owns, [cores]; 1 in all.

    Lines are dealt out to shards in turn: a table of few lines lies on few SparseCores. Of a
    larger one whole rounds are counted; of one in blocks, rows here and there.
    """
    table, offset = stack.table(name)
    most = _ROUNDS * stack.layout.shards * stack.layout.pack
    rows = np.arange(min(table.vocab_size, most))
    if table.vocab_size > most and stack.layout.blocks:
        rows = np.linspace(0, table.vocab_size - 1, most).astype(np.int64)
    owners = layout.id_of(stack.layout.physical(offset + rows)) % layout.total_cores
    return np.bincount(owners, minlength=layout.total_cores) / len(rows)


def _fullest(means: np.ndarray) -> int:
    """Returns what the fullest owner gets of any SparseCore, from the means of each."""
    return math.ceil(float(np.max(means + _SIGMAS * np.sqrt(means), initial=0.0)))


def _int32(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size,), jnp.int32)
