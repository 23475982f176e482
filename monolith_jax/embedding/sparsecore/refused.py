"""What the SparseCore engine cannot do, table by table, with the reason."""

from collections.abc import Sequence
from typing import Any

from monolith_jax.embedding.config import TableConfig
from monolith_jax.embedding.sparsecore.chips import known_kinds, library_missing, sparsecores_of
from monolith_jax.optimizers import UpdateRule

_MOST_ROWS = 2**31 - 1


def refusals(
    tables: Sequence[TableConfig], batch_size: int, device: Any, devices: int
) -> tuple[str, ...]:
    """Returns why these tables cannot be kept on the SparseCores of `devices`; empty: they can.

    Args:
      tables: the tables.
      batch_size: examples of a batch, over all devices.
      device: one of the devices, all being of its kind.
      devices: how many.

    Example:
      >>> import jax
      >>> from monolith_jax.embedding import TableConfig
      >>> table = TableConfig(name="user", vocab_size=10, dim=8, dtype="bfloat16")
      >>> for reason in refusals([table], 64, jax.devices("cpu")[0], 1):
      ...     print(reason.split(";")[0])
      cpu has no SparseCores
      table 'user': dtype bfloat16
    """
    found = []
    cores = sparsecores_of(device)
    if cores is None:
        kind = getattr(device, "device_kind", device)
        found.append(f"{kind} has no SparseCores; those that have: {', '.join(known_kinds())}")
    elif missing := library_missing():
        found.append(missing)
    found += table_refusals(tables)
    if cores is not None:
        found += batch_refusals(batch_size, devices * cores.count)
    return tuple(found)


def table_refusals(tables: Sequence[TableConfig]) -> tuple[str, ...]:
    """Returns why tables cannot be kept on any SparseCore, one line for each that cannot."""
    found = []
    for table in tables:
        where = f"table {table.name!r}"
        if table.dtype != "float32":
            found.append(f"{where}: dtype {table.dtype}; SparseCores keep float32 alone")
        if reason := _rule(table.optimizer):
            found.append(f"{where}: {reason}")
        if table.vocab_size > _MOST_ROWS:
            found.append(f"{where}: {table.vocab_size} rows; row numbers are int32")
    return tuple(found)


def batch_refusals(batch_size: int, cores: int) -> tuple[str, ...]:
    """Returns why a batch cannot be dealt out to so many SparseCores, or nothing."""
    if batch_size > 0 and batch_size % cores == 0:
        return ()
    near = [n for n in (batch_size // cores * cores, (batch_size // cores + 1) * cores) if n]
    return (
        f"batch_size {batch_size} does not divide over {cores} SparseCores; valid are the "
        f"multiples of {cores}, the nearest {' and '.join(map(str, near))}",
    )


def _rule(rule: UpdateRule) -> str:
    """Returns what about a rule a SparseCore cannot do, which updates touched rows, elementwise."""
    name = type(rule).__name__
    if rule.touches_all_rows:
        return (
            f"{name} moves every row at every step, a SparseCore those of the batch alone; "
            "LazyAdam does that"
        )
    narrow = [slot.name for slot in rule.slots if slot.per_row]
    if narrow:
        return (
            f"{name} keeps one {narrow[0]} a row, a SparseCore's slots are as wide as the values; "
            "Adagrad keeps one for each value"
        )
    return ""
