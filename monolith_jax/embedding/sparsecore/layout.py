"""Where a row lives on SparseCores: where the xla engine has it, seen as rows and not as lines.

The library deals the ids that it is given out to all S SparseCores of all devices like cards: id i
is row `i // S` of SparseCore `i % S`. Which ids it is given is ours to say. So each device keeps
the rows that the xla engine would keep there, in the same order; its SparseCores have equal,
consecutive parts of them. A checkpoint's arrays and those on the chips then differ by nothing but
each device's view of its own block: lines of 128 lanes there, rows of `dim` lanes (to a multiple of
8) here. Not a row crosses from chip to chip, and a checkpoint fits any number of chips.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.embedding._layout import Layout

MULTIPLE = 8
"""The library wants rows of a SparseCore, and lanes of a row, in multiples of this."""


@dataclass(frozen=True)
class CoreLayout:
    """The rows of one stack on SparseCores.

    Attributes:
      lines: the xla engine's layout of the same stack.
      devices: jax devices, which divide its virtual shards.
      cores: SparseCores of one device.

    Example:
      >>> layout = CoreLayout(Layout(rows=64, dim=12, shards=4), devices=2, cores=2)
      >>> layout.shape, layout.rows_per_core, layout.id_of(np.array([0, 1, 31, 32, 63])).tolist()
      ((64, 16), 16, [0, 4, 61, 2, 63])
    """

    lines: Layout
    devices: int
    cores: int

    @property
    def total_cores(self) -> int:
        """SparseCores of all devices."""
        return self.devices * self.cores

    @property
    def width(self) -> int:
        """Lanes of a row."""
        return _up(self.lines.dim)

    @property
    def _block(self) -> int:
        """Rows of a device's block in the xla engine."""
        return self.lines.physical_rows // self.devices

    @property
    def _taken(self) -> int:
        """Rows of a device's block that each of its SparseCores takes; the last may have fewer."""
        return -(-self._block // self.cores)

    @property
    def rows_per_core(self) -> int:
        """Rows of one SparseCore, padding included."""
        return _up(self._taken)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the array over all devices."""
        return self.rows_per_core * self.total_cores, self.width

    def id_of(self, physical: np.ndarray) -> np.ndarray:
        """Returns the ids that stand for physical rows of the xla engine, int64."""
        device, inside = physical // self._block, physical % self._block
        core, row = inside // self._taken, inside % self._taken
        return row * self.total_cores + device * self.cores + core

    def physical_of(self, core: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Returns the xla engine's physical rows from (SparseCore of all, its row)."""
        return core // self.cores * self._block + core % self.cores * self._taken + row

    def from_lines(self, block: jax.Array, fill: float) -> jax.Array:
        """Returns one device's block as SparseCores want it, from the xla engine's.

        Args:
          block: [lines of a device, line width].
          fill: what the padding holds: 0 in values, its first value in a slot.
        """
        rows = block.reshape(self._block, self.lines.width)[:, : self.lines.dim]
        rows = _padded(rows, (self._taken * self.cores, self.width), fill)
        parts = rows.reshape(self.cores, self._taken, self.width)
        parts = _padded(parts, (self.cores, self.rows_per_core, self.width), fill)
        return parts.reshape(-1, self.width)

    def to_lines(self, block: jax.Array, fill: float) -> jax.Array:
        """Returns one device's block as the xla engine has it, the inverse of `from_lines`.

        Args:
          block: [rows of a device, width].
          fill: what the padding of the lines holds.
        """
        parts = block.reshape(self.cores, self.rows_per_core, self.width)[:, : self._taken]
        rows = parts.reshape(-1, self.width)[: self._block, : self.lines.dim]
        lines = _padded(rows, (self._block, self.lines.width), fill)
        return lines.reshape(-1, self.lines.line_width)


def _up(n: int) -> int:
    return -(-n // MULTIPLE) * MULTIPLE


def _padded(array: Any, shape: tuple[int, ...], fill: float) -> jax.Array:
    if array.shape == shape:
        return jnp.asarray(array)
    behind = [(0, want - have) for want, have in zip(shape, array.shape, strict=True)]
    return jnp.pad(array, behind, constant_values=fill)
