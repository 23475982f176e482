"""A batch that is not there: its shapes, from how many distinct rows it can be expected to touch.

Ids are taken as drawn evenly from their table. Of all distributions this one touches the most
distinct rows: real data, where some ids are frequent, need no more.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.embedding import StackLookups
from monolith_jax.embedding.sparsecore import SparseCoreEngine
from monolith_jax.planning.distinct import distinct
from monolith_jax.planning.expected_cores import expected_core_lookups

_DRAWS = 4
"""Batches whose exchange is drawn; what is planned for holds the last of them at least."""


def expected_lookups(engine: Any, batch_size: int) -> dict[str, Any]:
    """Returns the lookups of one batch as `jax.ShapeDtypeStruct`s, as the engine prepares them.

    Args:
      engine: the embedding engine.
      batch_size: examples, over all devices.
    """
    if isinstance(engine, SparseCoreEngine):
        asked = expected_core_lookups(engine)
        return _placed(asked, engine.lookups_sharding(asked))
    lookups = {
        stack.name: _stack(
            stack,
            engine.reach[stack.name].rows,
            stack.name in engine.ragged,
            batch_size,
            engine.devices,
        )
        for stack in engine.asking
    }
    return _placed(lookups, engine.lookups_sharding(lookups))


def _stack(stack: Any, per_unit: int, ragged: bool, batch: int, devices: int) -> StackLookups:
    # numba takes its time to import; what only reads a plan needs none of it.
    from monolith_jax.embedding._ladder import capacity
    from monolith_jax.embedding._route import LEAST_ROWS

    layout, ids = stack.layout, stack.ids_per_example
    block = layout.physical_rows // devices
    # Features that read one column into one table ask for the same rows.
    lengths: dict[tuple[str, str], int] = {}
    for part in stack.features:
        key = (part.table, part.feature.source)
        lengths[key] = max(lengths.get(key, 0), part.max_length)
    draws = {table.name: 0 for table in stack.tables}
    for (table_name, _), length in lengths.items():
        draws[table_name] += batch * length

    def touched(share: int, pack: int) -> float:
        """Distinct rows, or lines of `pack` rows, of one of `share` equal parts of the batch."""
        return sum(
            distinct(-(-table.vocab_size // pack), draws[table.name] / share)
            for table in stack.tables
        )

    def size(mean: float, least: int, most: int, sigmas: float) -> int:
        # The largest of many buckets lies some standard deviations above their mean.
        needed = min(math.ceil(mean + sigmas * math.sqrt(mean)), max(1, most))
        return capacity(needed, least=least, most=max(1, most))

    rows = size(touched(1, 1) / devices, LEAST_ROWS, min(batch * ids, block), 3.0)
    lines = slot = None
    exchange: dict[str, Any] = {}
    if devices > 1:
        each = touched(devices, 1) / devices
        most = max(1, min(batch * ids // devices, block))
        exchange = _exchange(each, devices, most, layout.pack if ragged else 0)
    if per_unit > 1:
        most = min(rows, block // per_unit)
        held = size(touched(1, per_unit) / devices, LEAST_ROWS, most, 3.0)
        lines, slot = _int32(devices * held), _int32(devices * rows)
    weights = jax.ShapeDtypeStruct((batch, ids), jnp.float32)
    return StackLookups(
        _int32(devices * rows),
        _int32(batch, ids),
        lines=lines,
        slot=slot,
        weights=weights if stack.weighted else None,
        **exchange,
    )


def _exchange(each: float, devices: int, most: int, pack: int) -> dict[str, Any]:
    """Returns the exchange's part of a stack's lookups.

    Args:
      each: rows that a pair of devices is expected to exchange.
      devices: D.
      most: the most that one device can ask another for.
      pack: rows of a line, for the ragged exchange; 0: the one by buckets.
    """
    from monolith_jax.embedding import _ragged, _relay
    from monolith_jax.embedding._route import LEAST_ROWS

    random = np.random.default_rng(0)
    found: tuple[int, int] | None = None
    for _ in range(_DRAWS):
        counts = np.minimum(random.poisson(each, (devices, devices)), most)
        if pack:
            found = _ragged.sizes(counts, pack, least=LEAST_ROWS, most=most, room=found or (0, 0))
        else:
            least = max(8, LEAST_ROWS // devices)
            found = _relay.sizes(counts, least=least, most=most, room=found)
    assert found is not None
    if pack:
        parts = _int32(devices, 6, devices)
        return {"send": _int32(devices, found[0]), "parts": parts, "received": found[1]}
    hops = {name: _int32(devices, devices, found[1]) for name in ("relay", "forward") if found[1]}
    return {"send": _int32(devices, devices, found[0]), **hops}


def _int32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _placed(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        tree,
        shardings,
    )


def expected_batch(program: Any) -> dict[str, Any]:
    """Returns the train step's batch as `Program.prepare` makes it, in shapes alone."""
    task, axes = program.task, program.mesh.axis_names
    size = task.input.batch_size
    by_example = NamedSharding(program.mesh, P(axes))

    def floats(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=by_example)

    return {
        "dense": floats(size, len(task.dense)),
        "label": floats(size),
        "weight": floats(size),
        "lookups": expected_lookups(program.engine, size),
    }
