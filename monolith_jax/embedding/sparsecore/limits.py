"""Buffer limits of a batch: read off its ids, so that none is dropped."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from monolith_jax.embedding._stacks import Stack
from monolith_jax.errors import DataError


@dataclass(frozen=True)
class Limits:
    """What a compiled program has room for, in one stack, per SparseCore.

    Attributes:
      ids: for one owner.
      rows: distinct ones among them.
      buffer: entries of all owners together, each owner's share rounded up to 8.
    """

    ids: int
    rows: int
    buffer: int


def rung(needed: int, least: int = 64) -> int:
    """Returns the next of the sizes 2^k and 3 * 2^k, so that few programs serve a run.

    A function of this batch alone, as in `_ladder`.

    Example:
      >>> [rung(n) for n in (1, 64, 65, 97, 129, 1000)]
      [64, 64, 96, 128, 192, 1024]
    """
    power = max(least, 1 << (max(needed, 1) - 1).bit_length())
    return 3 * power // 4 if needed <= 3 * power // 4 and 3 * power // 4 >= least else power


@dataclass(frozen=True)
class Demand:
    """What a batch wants of one stack, int64 [C SparseCores, C owners] each.

    Attributes:
      ids: entries.
      rows: distinct rows among them.
    """

    ids: np.ndarray
    rows: np.ndarray


def limits_of(demand: Demand, used: int, most_rows: int, room: Limits | None = None) -> Limits:
    """Returns the limits that a batch is compiled with.

    Args:
      demand: of the batch.
      used: entries that the fullest SparseCore's buffer needs.
      most_rows: what a SparseCore holds, `SparseCores.rows`.
      room: those of a program that is there already; taken if they hold everything.
    """
    ids, rows = int(demand.ids.max(initial=0)), int(demand.rows.max(initial=0))
    if room is not None and ids <= room.ids and rows <= room.rows and used <= room.buffer:
        return room
    return Limits(rung(ids), min(rung(rows), most_rows, rung(ids)), rung(used, 256))


def check(stack: Stack, demand: Demand, used: int, limits: Limits, given: bool) -> None:
    """Raises if a batch wants more than there is room for.

    Raises:
      DataError: names the tables and how many ids would be dropped.
    """
    over = {
        "ids": np.maximum(demand.ids - limits.ids, 0),
        "distinct rows": np.maximum(demand.rows - limits.rows, 0),
    }
    tables = ", ".join(repr(table.name) for table in stack.tables)
    todo = (
        "raise the limits"
        if given
        else "take a smaller input.batch_size, more chips, or train.engine xla"
    )
    for what, beyond in over.items():
        if total := int(beyond.sum()):
            core, owner = np.unravel_index(int(beyond.argmax()), beyond.shape)
            held = limits.ids if what == "ids" else limits.rows
            raise DataError(
                f"tables {tables}: SparseCore {core} asks SparseCore {owner} for "
                f"{held + int(beyond[core, owner])} {what} in one batch, {held} is the most; "
                f"{total} over all would be dropped; {todo}"
            )
    if used > limits.buffer:
        raise DataError(
            f"tables {tables}: a SparseCore's ids take {used} entries, its buffer has "
            f"{limits.buffer}; {used - limits.buffer} would be dropped; {todo}"
        )


def fixed(limits: Mapping[str, Limits] | None, stack: Stack) -> Limits | None:
    """Returns the limits given for a stack, if any."""
    return None if limits is None else limits.get(stack.name)
