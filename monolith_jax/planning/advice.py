"""What to change where a task does not fit: each change with the bytes that it saves."""

from typing import Any

from monolith_jax.planning._units import held
from monolith_jax.planning.chips import Chip
from monolith_jax.task import TaskConfig


def advise(
    task: TaskConfig, tables: Any, needs: int, chip: Chip, chips: int, fits: bool
) -> tuple[str, ...]:
    """Returns what would make a task fit, the least change to the model first.

    Args:
      task: the config.
      tables: bytes of each table on a chip, the largest first.
      needs: bytes on a chip.
      chip: the chip.
      chips: how many.
      fits: whether it does already; then nothing is to be said.
    """
    if fits:
        return ()
    over = needs - chip.hbm_bytes
    lines = [f"{held(over, 1)} a chip too much; all tables are sharded over all chips already"]
    found = [_more_chips(tables, needs, chip, chips), *_slots(task, tables, over)]
    found += [_halved(tables, over), _shrunk(tables, over)]
    return tuple(lines + [line for line in found if line])


def _more_chips(tables: Any, needs: int, chip: Chip, chips: int) -> str:
    """Says how many chips would do; the tables' part falls with their number, the rest stays."""
    split = sum(t.values + t.slots for t in tables)
    factor = 2
    while needs - split + split / factor > chip.hbm_bytes and factor < 1024:
        factor *= 2
    rest = needs - split + split / factor
    if rest > chip.hbm_bytes:
        return "more chips do not help: what is not tables is too large; take a smaller batch_size"
    return f"shard over {chips * factor} chips: about {held(rest, 1)} a chip"


def _slots(task: TaskConfig, tables: Any, over: int) -> list[str]:
    """Says what row-wise Adagrad would save of the slots."""
    saved = sum(t.slots - t.slots // max(t.dim, 1) for t in tables)
    rules = {type(table.optimizer).__name__ for table in task.tables}
    if not saved or rules == {"RowwiseAdagrad"}:
        return []
    return [f"rowwise_adagrad for all tables saves {held(saved, 1)}{_enough(saved, over)}"]


def _halved(tables: Any, over: int) -> str:
    """Names the fewest tables whose values in bfloat16 would save what is too much."""
    saved, names = 0, []
    for table in tables:
        saved += table.values // 2
        names.append(table.name)
        if saved >= over:
            break
    return f"bfloat16 values of {', '.join(names)} save {held(saved, 1)}{_enough(saved, over)}"


def _shrunk(tables: Any, over: int) -> str:
    """Says how many rows the largest table may have."""
    table = tables[0]
    size = table.values + table.slots
    if over >= size:
        return f"no size of {table.name} alone is small enough: it takes {held(size, 1)}"
    rows = table.rows * (size - over) // size
    return f"shrink {table.name} from {table.rows:,} to {rows:,} rows: enough"


def _enough(saved: int, over: int) -> str:
    return ": enough" if saved >= over else f": {held(over - saved, 1)} short"
