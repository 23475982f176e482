"""Bytes that a step on SparseCores moves, counted from what its batch can be expected to ask."""

from typing import Any

from monolith_jax.embedding.sparsecore import SparseCoreEngine
from monolith_jax.planning.distinct import distinct


def core_traffic(engine: SparseCoreEngine, stack: Any) -> tuple[float, float, float, float]:
    """Returns bytes on each device of (rows, exchange, ids, sent), as `Traffic` has them.

        rows      read once for every SparseCore that asks; with the slots once in and out
        exchange  asked rows as they arrive, and their gradients as they leave, each in and out
        ids       a row for each id: read, and its gradient read, and the sample's share
        sent      asked rows and their gradients to and from other devices

    Args:
      engine: on its devices.
      stack: one of its stacks.
    """
    layout = engine.layouts[stack.name]
    sizes = {table.name: table.vocab_size for table in stack.tables}
    cores, row = layout.total_cores, 4 * layout.width
    draws = dict.fromkeys(sizes, 0)
    for part in stack.features:
        draws[part.table] += engine.batch_size * part.max_length
    asked = layout.cores * sum(distinct(sizes[name], n / cores) for name, n in draws.items())
    touched = sum(distinct(sizes[name], n) for name, n in draws.items()) / engine.devices
    ids = sum(draws.values()) / engine.devices
    moved = 2 * touched * (1 + len(stack.rule.slots)) + asked
    others = (engine.devices - 1) / engine.devices
    return moved * row, 4 * asked * row, 3 * ids * row, 2 * asked * row * others
