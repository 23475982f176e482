"""What all entries of one table have in common, and the program that reads such an entry.

A table's entries all have one dimension and the same optimizers. The first entry shows them; the
layout says in which column each number of an entry goes, and `program` how the compiled walk finds
them in the one byte order that protobuf's own writers use.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from monolith_jax.checkpoint.monolith_assets._dumps import ELEMENTWISE, OPTIMIZERS, Optimizer
from monolith_jax.checkpoint.monolith_assets._entry import Entry
from monolith_jax.checkpoint.tf._wire import BYTES, FIXED32, VARINT

# Operations of the walk: what must come next in an entry. Each is (operation, tag, count).
ID, FLOATS, OPEN, CLOSE, INT, EMPTY = 0, 1, 2, 3, 4, 5


class SliceLayout(NamedTuple):
    """One optimizer of an entry: its number, and how many floats each field of floats has."""

    number: int
    counts: tuple[int, ...]

    @property
    def optimizer(self) -> Optimizer:
        """Its names and fields."""
        return OPTIMIZERS[self.number]


@dataclass(frozen=True)
class Layout:
    """The form of a table's entries.

    Attributes:
      dim: numbers of an embedding.
      slices: the optimizers, in the order of the slices of the embedding that they update.
    """

    dim: int
    slices: tuple[SliceLayout, ...]

    @property
    def width(self) -> int:
        """All floats of an entry: the embedding's, then each slice's in the order of fields."""
        return self.dim + sum(sum(of.counts) for of in self.slices)

    @property
    def num_ints(self) -> int:
        """All integers of an entry beside the id: each slice's, then the time."""
        return 1 + sum(_ints(of.optimizer) for of in self.slices)

    def dims(self) -> list[int | None]:
        """Returns the numbers of the embedding that each slice updates, None if unknown.

        An optimizer with a slot for each number shows it; a single other one has the rest.

        Example:
          >>> Layout(32, (SliceLayout(3, (1, 1)), SliceLayout(2, ()))).dims()
          [1, 31]
        """
        found: list[int | None] = [
            of.counts[0] if of.optimizer.name in ELEMENTWISE and of.counts else None
            for of in self.slices
        ]
        rest = self.dim - sum(dim or 0 for dim in found)
        if found.count(None) == 1 and rest >= 0:
            found[found.index(None)] = rest
        return found

    def __str__(self) -> str:
        """Returns the form in words, as errors show it."""
        parts = []
        for of in self.slices:
            floats = [f for f in of.optimizer.fields if f.kind != "int"]
            slots = ", ".join(f"{f.name} {n}" for f, n in zip(floats, of.counts, strict=True))
            parts.append(f"{of.optimizer.name}({slots})")
        return f"dim {self.dim}, {' + '.join(parts) or 'no optimizer'}"


def _ints(optimizer: Optimizer) -> int:
    return sum(field.kind == "int" for field in optimizer.fields)


def layout_of(entry: Entry) -> Layout:
    """Returns the layout that an entry has."""
    slices = (
        SliceLayout(of.optimizer.number, tuple(len(floats) for floats in of.floats.values()))
        for of in entry.slices
    )
    return Layout(len(entry.num), tuple(slices))


def write_entry(entry: Entry, words: np.ndarray, ints: np.ndarray) -> None:
    """Writes an entry into its columns: uint32 [width], and int64 [1 + num_ints], the id first."""
    floats = list(entry.num)
    numbers = [entry.id]
    for of in entry.slices:
        for bits in of.floats.values():
            floats += bits
        numbers += of.ints.values()
    words[:] = floats
    ints[:] = [*numbers, entry.last_update_ts_sec]


def program(layout: Layout) -> np.ndarray:
    """Returns the walk's program for a layout, int64 [operations, 3]."""
    steps = [(ID, 0, 0), (FLOATS, _tag(2, FIXED32), layout.dim)]
    if not layout.slices:
        steps.append((EMPTY, _tag(3, BYTES), 0))
    else:
        steps.append((OPEN, _tag(3, BYTES), 1))
        for of in layout.slices:
            steps += _steps_of(of)
        steps.append((CLOSE, 0, 1))
    steps.append((INT, _tag(4, VARINT), 0))
    return np.array(steps, np.int64)


def _steps_of(of: SliceLayout) -> list[tuple[int, int, int]]:
    steps = [(OPEN, _tag(1, BYTES), 2), (OPEN, _tag(of.number, BYTES), 3)]
    counts = iter(of.counts)
    for field in of.optimizer.fields:
        if field.kind == "int":
            steps.append((INT, _tag(field.number, VARINT), 0))
        else:
            steps.append((FLOATS, _tag(field.number, FIXED32), next(counts)))
    return [*steps, (CLOSE, 0, 3), (CLOSE, 0, 2)]


def _tag(number: int, kind: int) -> int:
    return number << 3 | kind  # below 128 for all numbers here: one byte
