"""What a batch asks of the tables on SparseCores, and where its vectors arrive."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import numpy as np

from monolith_jax.embedding._parts import Part
from monolith_jax.embedding._stacks import Stack

Array: TypeAlias = Any
"""A numpy array on the host, a jax.Array within a step."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CoreLookups:
    """The lookups of one batch into one stack, in the library's form, of C SparseCores in all.

    Each SparseCore has the ids of its examples, grouped by the SparseCore that owns the row: a
    sparse matrix [samples, rows], cut by owner. The leading axis of every array is split over the
    devices.

    Attributes:
      pointers: int32 [C * max(C, 8)]; per SparseCore and owner, where the owner's ids end within
        the SparseCore's part of the three arrays below; each starts at the next multiple of 8.
      rows: int32 [C * n]; the row within its owner.
      samples: int32 [C * n]; the sample that it belongs to, within the SparseCore's.
      gains: float32 [C * n]; what the row is multiplied by on its way into the sample.
      masks: bool [batch, length]; by sequence feature, where there are ids.
      max_ids: ids that one SparseCore has at most for one owner; compiled into the program.
      max_rows: distinct ones among them; likewise.
    """

    pointers: Array
    rows: Array
    samples: Array
    gains: Array
    masks: dict[str, Array]
    max_ids: int = field(metadata={"static": True})
    max_rows: int = field(metadata={"static": True})


class Samples:
    """The vectors of a stack, in the order in which SparseCores make them: core, feature, example.

    Every SparseCore has `batch_size / C` consecutive examples. A combined feature has one sample an
    example, a sequence `max_length`.

    Args:
      stack: the tables and the lookups into them.
      batch_size: a multiple of `cores`.
      cores: SparseCores of all devices.

    Attributes:
      examples: of one SparseCore.
      per_core: samples of one SparseCore.
      total: of all.
    """

    def __init__(self, stack: Stack, batch_size: int, cores: int) -> None:
        self.examples = batch_size // cores
        self.parts = stack.features
        self._starts: dict[str, int] = {}
        start = 0
        for part in stack.features:
            self._starts[part.name] = start
            start += self.examples * _each(part)
        self.per_core, self.total = start, start * cores
        self._batch = batch_size

    def numbers(self) -> np.ndarray:
        """Returns the sample of every id of a batch, int64 [batch, ids per example]."""
        example = np.arange(self._batch)[:, None]
        core, inside = example // self.examples, example % self.examples
        found = []
        for part in self.parts:
            each = _each(part)
            place = np.arange(part.max_length)[None] if each > 1 else np.zeros((1, part.max_length))
            first = core * self.per_core + self._starts[part.name]
            found.append(first + inside * each + place.astype(np.int64))
        return np.concatenate(found, axis=1) if found else np.zeros((self._batch, 0), np.int64)

    def of_part(self, vectors: jax.Array, part: Part) -> jax.Array:
        """Returns a part's vectors in the order of the examples, within one device.

        Args:
          vectors: [cores * per_core, width], of this device.
          part: the lookup.

        Returns:
          [examples of this device, width], or [.., max_length, width] of a sequence.
        """
        each, width = _each(part), vectors.shape[1]
        start = self._starts[part.name]
        by_core = vectors.reshape(-1, self.per_core, width)
        mine = by_core[:, start : start + self.examples * each]
        if part.feature.sequence:
            return mine.reshape(-1, part.max_length, width)
        return mine.reshape(-1, width)


def _each(part: Part) -> int:
    return part.max_length if part.feature.sequence else 1
