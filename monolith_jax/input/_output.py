"""The memory that a walk fills: one flat array per type, grown as needed, and columns cut from it.

Column c of fixed length k takes k * rows places from its BASE on, one of variable length as many as
its ROOM. One array per type instead of one per column, because a kernel can index an array but not
a list of arrays of different types.
"""

import numpy as np

from monolith_jax.input._layout import (
    BASE,
    FIRST_RAGGED,
    FLOAT,
    INT64,
    KIND,
    MULTIPLIER,
    OFFSETS_STRIDE,
    ROOM,
    ROW_CAPACITY,
    ROWS,
    USED,
    WIDTH,
    Layout,
)
from monolith_jax.input.schema import Columns, Ragged

_LINE = 16  # places in a cache line of the narrower type


class Output:
    """Values and offsets of one file's columns while it is read.

    Attributes:
      cols: the layout's, with BASE, ROOM and USED of this file.
      ints: int64, floats: float32, the values; offsets: int64, of the variable lengths.
      default_floats: float32 by column.
      state: int64 [16], the walk's.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        """Allocates room for `rows` rows, and two values per row and variable-length column."""
        self.layout = layout
        self.cols = layout.cols.copy()
        self.default_floats = np.zeros(len(self.cols) + 1, np.float32)
        for i, column in enumerate(layout.columns):
            if column.dtype == "float32" and isinstance(column.default, int | float):
                self.default_floats[i] = column.default
        self.state = np.zeros(16, np.int64)
        self.state[MULTIPLIER] = layout.multiplier
        self.state[FIRST_RAGGED] = layout.first_ragged
        self.ints, self.floats = np.empty(0, np.int64), np.empty(0, np.float32)
        self.offsets = np.empty(0, np.int64)
        self._allocate(max(rows, 1), np.full(len(self.cols), 2 * max(rows, 1)))

    @property
    def rows(self) -> int:
        """The rows that are filled."""
        return int(self.state[ROWS])

    def grow_rows(self, rows: int) -> None:
        """Makes room for `rows` rows, and as many values as that needs by the mean so far."""
        self._allocate(rows, self._room(rows))

    def grow_values(self, column: int, need: int) -> None:
        """Makes room for `need` more values of a variable-length column, and some more of all."""
        rows = int(self.state[ROW_CAPACITY])
        room = self._room(rows)
        room[column] = max(2 * self.cols[column, ROOM], self.cols[column, USED] + need)
        self._allocate(rows, room)

    def columns(self) -> Columns:
        """Returns the filled rows, read-only views in the schema's terms."""
        found: Columns = {}
        for i, column in enumerate(self.layout.columns):
            base, used = int(self.cols[i, BASE]), int(self._used()[i])
            values = (self.ints if column.dtype == "int64" else self.floats)[base : base + used]
            values.flags.writeable = False
            if column.is_ragged:
                start = (i - self.layout.first_ragged) * int(self.state[OFFSETS_STRIDE])
                offsets = self.offsets[start : start + self.rows + 1]
                offsets.flags.writeable = False
                found[column.name] = Ragged(values, offsets)
            else:
                found[column.name] = (
                    values if column.length == 1 else values.reshape(-1, column.length or 1)
                )
        return found

    def _used(self) -> np.ndarray:
        """The places that are filled, by column."""
        return self.cols[:, USED] + self.cols[:, WIDTH] * self.rows

    def _room(self, rows: int) -> np.ndarray:
        """What `rows` rows need by the mean so far, an eighth more, and no less than there is."""
        wanted = self.cols[:, USED] * rows // max(self.rows, 1)
        return np.maximum(self.cols[:, ROOM], wanted + wanted // 8 + _LINE)

    def _allocate(self, rows: int, ragged_room: np.ndarray) -> None:
        """Lays the columns out anew for `rows` rows, keeping what is filled."""
        fixed = self.cols[:, WIDTH] > 0
        self.cols[:, ROOM] = np.where(fixed, self.cols[:, WIDTH] * rows, ragged_room)
        old_base = self.cols[:, BASE].copy()
        self.ints = self._place(INT64, self.ints, old_base)
        self.floats = self._place(FLOAT, self.floats, old_base)
        old_stride, stride = int(self.state[OFFSETS_STRIDE]), rows + 1 + _LINE
        offsets = np.zeros((len(self.cols) - self.layout.first_ragged) * stride, np.int64)
        for i in range(len(self.cols) - self.layout.first_ragged):
            if old_stride:
                old = self.offsets[i * old_stride :][: self.rows + 1]
                offsets[i * stride :][: len(old)] = old
        self.offsets = offsets
        self.state[OFFSETS_STRIDE], self.state[ROW_CAPACITY] = stride, rows

    def _place(self, kind: int, old: np.ndarray, old_base: np.ndarray) -> np.ndarray:
        """Gives the columns of one kind their BASE in a new array, and moves their values there."""
        mine, at = np.flatnonzero(self.cols[:, KIND] == kind), 0
        for i in mine:
            self.cols[i, BASE] = at
            # One cache line more each: columns a multiple of 4 KiB apart would all compete for the
            # same few lines of the first-level cache.
            at += (self.cols[i, ROOM] // _LINE + 2) * _LINE
        new = np.empty(at, old.dtype)
        for i in mine:
            base, used = self.cols[i, BASE], self._used()[i]
            new[base : base + used] = old[old_base[i] : old_base[i] + used]
        return new
