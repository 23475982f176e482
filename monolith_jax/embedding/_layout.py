"""Where a row of a table lives: packed to the vector width, dealt out to virtual shards.

A TPU's memory moves lines of 128 lanes; a narrower row would leave the rest of its line empty. So
rows of `dim` elements are widened to a divisor (or a multiple) of 128 and `pack` of them share a
line. Lines are dealt out to `shards` virtual shards like cards: line `l` is line `l // shards` of
shard `l % shards`. Any number of devices that divides `shards` then holds a contiguous, balanced
block of whole shards, and the array's bytes are the same on every mesh and backend: a checkpoint
restores onto any of them without moving a row within the array.

Dealing like cards is `mod`. The other way, `div`, cuts each table into as many blocks of
consecutive lines as there are shards: with `b` lines a block, shard s holds lines `s * b` to
`s * b + b - 1`, behind the blocks of the tables before. A device then holds a range of each
table's ids.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

LANES = 128

IntT = TypeVar("IntT", int, np.ndarray)


@dataclass(frozen=True)
class Layout:
    """The place of `rows` rows of `dim` elements in an array `[lines, line_width]`.

    Attributes:
      rows: rows in logical order, 0 to rows - 1.
      dim: elements of a row.
      shards: virtual shards; the layout is the same for every number of devices dividing it.
      blocks: lines that a shard has of each table, in order, where tables are cut into blocks
        (`div`); table t then starts at logical line `shards * sum(blocks[:t])`. Empty: `mod`.

    Example:
      >>> layout = Layout(rows=10, dim=30, shards=2)
      >>> layout.width, layout.pack, layout.shape
      (32, 4, (4, 128))
      >>> [layout.physical(row) for row in (0, 1, 3, 4, 8, 9)]
      [0, 1, 3, 8, 4, 5]
      >>> layout = Layout(rows=16, dim=30, shards=2, blocks=(2,))
      >>> [layout.physical(row) for row in (0, 1, 3, 4, 8, 9)]
      [0, 1, 3, 4, 8, 9]
    """

    rows: int
    dim: int
    shards: int
    blocks: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Lanes of a row: `dim`, widened to a divisor or a multiple of 128."""
        if self.dim >= LANES:
            return -(-self.dim // LANES) * LANES
        return 1 << (self.dim - 1).bit_length()

    @property
    def pack(self) -> int:
        """Rows of a line."""
        return max(1, LANES // self.width)

    @property
    def line_width(self) -> int:
        """Lanes of a line: 128, or `width` where that is more."""
        return self.pack * self.width

    @property
    def lines_per_shard(self) -> int:
        """Lines of a virtual shard, padding included."""
        return sum(self.blocks) or -(-self.rows // (self.pack * self.shards))

    @property
    def shape(self) -> tuple[int, int]:
        """The array's shape, `(lines, line_width)`."""
        return self.lines_per_shard * self.shards, self.line_width

    @property
    def physical_rows(self) -> int:
        """Rows that the array has room for."""
        return self.shape[0] * self.pack

    def physical(self, row: IntT) -> IntT:
        """Returns the physical row, `line * pack + place in the line`, of logical rows."""
        line, place = row // self.pack, row % self.pack
        return self.physical_line(line) * self.pack + place

    def physical_line(self, line: Any) -> Any:
        """Returns where logical lines live; ints, or arrays of integers, traced ones too."""
        kind = _kind(line)
        per_shard, shards = kind(self.lines_per_shard), kind(self.shards)
        if not self.blocks:
            return line % shards * per_shard + line // shards
        first, block = self._blocks(line // shards, kind)
        local = line - first * shards
        return local // block * per_shard + first + local % block

    def logical_line(self, line: Any) -> Any:
        """Returns the logical lines that physical ones hold, the inverse of `physical_line`.

        Example:
          >>> layout = Layout(rows=10, dim=30, shards=2)
          >>> [layout.logical_line(layout.physical(row) // 4) for row in (0, 4, 8)]
          [0, 1, 2]
        """
        kind = _kind(line)
        per_shard, shards = kind(self.lines_per_shard), kind(self.shards)
        shard, nth = line // per_shard, line % per_shard
        if not self.blocks:
            return nth * shards + shard
        first, block = self._blocks(nth, kind)
        return first * shards + shard * block + nth - first

    def _blocks(self, nth: Any, kind: Any) -> tuple[Any, Any]:
        """Returns the first line in a shard, and the lines, of the table that has its `nth`."""
        starts = np.cumsum((0, *self.blocks[:-1])).astype(kind)
        sizes = np.array(self.blocks).astype(kind)
        if isinstance(nth, jax.Array):
            table = jnp.searchsorted(starts, nth, side="right", method="compare_all") - 1
            return jnp.asarray(starts)[table], jnp.asarray(sizes)[table]
        table = np.searchsorted(starts, nth, side="right") - 1
        if kind is int:
            return int(starts[table]), int(sizes[table])
        return starts[table], sizes[table]


def _kind(line: Any) -> Any:
    """Returns what makes a constant of the type of `line`."""
    return type(line) if isinstance(line, int) else line.dtype.type
