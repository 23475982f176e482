"""What a table holds, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monolith_jax.checkpoint.monolith_assets._layout import Layout
from monolith_jax.checkpoint.monolith_assets._rows import Batch


@dataclass(frozen=True)
class Slice:
    """The optimizer of one slice of a table's embeddings, with its slots.

    Attributes:
      optimizer: Monolith's name, such as "adagrad".
      dim: the numbers of the embedding that it updates; None if the dump does not tell (of two
        slices of sgd, say). Slices follow each other from the embedding's first number on, unless
        one is updated by a moving average, which leaves no dump.
      slots: by the field's name in the dump: float32 [n, k] of repeated floats, float32 [n] of
        single ones, int64 [n] of integers.
    """

    optimizer: str
    dim: int | None
    slots: dict[str, np.ndarray]


@dataclass(frozen=True)
class TableDump:
    """The entries of one table, in the order of shards.

    Attributes:
      name: the table's.
      ids: int64 [n], as Monolith's feature ids are.
      embeddings: float32 [n, dim].
      slices: the optimizers, in the order of the slices of the embedding.
      last_update_ts_sec: int64 [n], when each was trained last, in seconds since 1970.
    """

    name: str
    ids: np.ndarray
    embeddings: np.ndarray
    slices: tuple[Slice, ...]
    last_update_ts_sec: np.ndarray


def to_table(name: str, batches: Sequence[Batch]) -> TableDump:
    """Returns the table of batches of one layout; one without entries has dim 0."""
    if not batches:
        none = np.empty(0, np.int64)
        return TableDump(name, none, np.empty((0, 0), np.float32), (), none.copy())
    layout = batches[0].layout
    slices, column, number = [], layout.dim, 1
    for of, dim in zip(layout.slices, layout.dims(), strict=True):
        slots: dict[str, np.ndarray] = {}
        counts = iter(of.counts)
        for field in of.optimizer.fields:
            if field.kind == "int":
                slots[field.name] = _int_column(batches, number)
                number += 1
                continue
            end = column + next(counts)
            slots[field.name] = _float_columns(batches, column, end)
            if field.kind == "float":
                slots[field.name] = slots[field.name][:, 0]
            column = end
        slices.append(Slice(of.optimizer.name, dim, slots))
    return TableDump(
        name,
        _int_column(batches, 0),
        _float_columns(batches, 0, layout.dim),
        tuple(slices),
        _int_column(batches, layout.num_ints),
    )


def describe(layout: Layout) -> str:
    """Returns the optimizers of a table in words, with the slice of each.

    Example:
      >>> from monolith_jax.checkpoint.monolith_assets._layout import SliceLayout
      >>> describe(Layout(4, (SliceLayout(1, (1,)), SliceLayout(2, ()))))
      'adagrad[1] sgd[3]'
    """
    pairs = zip(layout.slices, layout.dims(), strict=True)
    return " ".join(f"{of.optimizer.name}[{'?' if d is None else d}]" for of, d in pairs)


def _float_columns(batches: Sequence[Batch], start: int, end: int) -> np.ndarray:
    return np.concatenate([b.words[:, start:end] for b in batches]).view(np.float32)


def _int_column(batches: Sequence[Batch], column: int) -> np.ndarray:
    return np.concatenate([b.ints[:, column] for b in batches])
