"""A batch that is not there: its shapes, from how many distinct rows it can be expected to touch.

Ids are taken as drawn evenly from their table. Of all distributions this one touches the most
distinct rows: real data, where some ids are frequent, need no more.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.embedding import StackLookups


def distinct(rows: int, draws: float) -> float:
    """Returns the distinct rows to expect of so many even draws: `V (1 - (1 - 1/V)^n)`.

    Example:
      >>> distinct(10, 0), round(distinct(10, 10), 2), distinct(1, 5)
      (0.0, 6.51, 1.0)
    """
    if rows == 1:
        return min(1.0, draws)
    return -rows * math.expm1(draws * math.log1p(-1.0 / rows))


def expected_lookups(engine: Any, batch_size: int) -> dict[str, StackLookups]:
    """Returns the lookups of one batch as `jax.ShapeDtypeStruct`s, as the engine prepares them.

    Args:
      engine: the embedding engine (`XlaEngine`).
      batch_size: examples, over all devices.
    """
    lookups = {
        stack.name: _stack(stack, engine.reach[stack.name].rows, batch_size, engine.devices)
        for stack in engine.stacks
    }
    return _placed(lookups, engine.lookups_sharding(lookups))


def _stack(stack: Any, per_unit: int, batch: int, devices: int) -> StackLookups:
    # numba takes its time to import; what only reads a plan needs none of it.
    from monolith_jax.embedding._ladder import capacity
    from monolith_jax.embedding._prepare import LEAST_ROWS

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
    send = lines = slot = None
    if devices > 1:
        each = size(
            touched(devices, 1) / devices,
            max(8, LEAST_ROWS // devices),
            min(batch * ids // devices, block),
            4.0,
        )
        send = _int32(devices, devices, each)
    if per_unit > 1:
        most = min(rows, block // per_unit)
        held = size(touched(1, per_unit) / devices, LEAST_ROWS, most, 3.0)
        lines, slot = _int32(devices * held), _int32(devices * rows)
    weights = jax.ShapeDtypeStruct((batch, ids), jnp.float32)
    return StackLookups(
        _int32(devices * rows),
        _int32(batch, ids),
        send,
        lines,
        slot,
        weights=weights if stack.weighted else None,
    )


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
