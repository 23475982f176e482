"""Drives the walk over a file: more bytes, more room, or an error in words."""

import logging
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from monolith_jax.errors import DataError
from monolith_jax.input._blocks import Blocks
from monolith_jax.input._explain import explain
from monolith_jax.input._jit import SLACK
from monolith_jax.input._layout import (
    BAD_HEADER,
    COLUMN,
    DAMAGED,
    GROW_ROWS,
    GROW_VALUES,
    NEED,
    NEED_BYTES,
    POS,
    ROW_CAPACITY,
    ROWS,
    WHERE,
    Layout,
)
from monolith_jax.input._output import Output
from monolith_jax.input._walk import frame, walk

_logger = logging.getLogger(__name__)

# Few: their lists tell how much room the rest needs, and moving them costs little.
_ROWS_AT_FIRST = 256


@dataclass
class Reader:
    """One pass over one file.

    Attributes:
      name: what errors call the file.
      blocks: its bytes.
      state: int64 [16], the walk's.
      num_records: how many records there are, if somebody knows; only a hint.
    """

    name: str
    blocks: Blocks
    state: np.ndarray
    num_records: int | None = None

    def read(self, output: Output, check_crc: bool, skip_damaged: bool) -> int:
        """Fills `output` with all of the file; returns the number of damaged records left out."""
        while True:
            status = walk(
                self.blocks.buffer,
                self.blocks.have,
                check_crc,
                skip_damaged,
                output.cols.reshape(-1),
                output.layout.table,
                output.layout.keys,
                output.ints,
                output.floats,
                output.offsets,
                output.default_floats,
                self.state,
            )
            if status == NEED_BYTES:
                if self._slide():
                    continue
                broken = self._truncation()
                break
            if status == GROW_ROWS:
                output.grow_rows(self._guess_rows())
            elif status == GROW_VALUES:
                output.grow_values(int(self.state[COLUMN]), int(self.state[NEED]))
            elif status == BAD_HEADER and skip_damaged:
                broken = self._record_error(status, output.layout)
                break
            else:
                raise DataError(self._record_error(status, output.layout))
        return int(self.state[DAMAGED]) + self._end(broken, skip_damaged)

    def count(self) -> int:
        """Returns the number of records by their headers."""
        while True:
            status = frame(self.blocks.buffer, self.blocks.have, self.state)
            if status == BAD_HEADER:
                raise DataError(self._record_error(status, None))
            if not self._slide():
                self._end(self._truncation(), skip_damaged=False)
                return int(self.state[ROWS])

    def _slide(self) -> bool:
        more = self.blocks.slide(int(self.state[POS]))
        self.state[POS] = 0
        return more

    def _guess_rows(self) -> int:
        """The rows that the whole file has: as hinted, or if it goes on as it began, and more."""
        rows, capacity = int(self.state[ROWS]), int(self.state[ROW_CAPACITY])
        # A record takes at least 16 bytes, whatever the hint says.
        if self.num_records and capacity < self.num_records <= self.blocks.size // 16:
            return self.num_records
        seen = self.blocks.offset + int(self.state[POS])
        guess = rows * self.blocks.size // max(seen, 1)
        return max(guess + guess // 32, capacity + capacity // 2) + 16

    def _at(self) -> str:
        number = int(self.state[ROWS] + self.state[DAMAGED])
        return f"{self.name}: record {number} at byte {self.blocks.offset + int(self.state[POS])}"

    def _record_error(self, status: int, layout: Layout | None) -> str:
        pos = int(self.state[POS])
        data = self.blocks.buffer.data[pos : self.blocks.have]
        if status != BAD_HEADER:
            data = data[12 : 12 + int.from_bytes(data[:8], "little")]
        column = layout.columns[int(self.state[COLUMN])] if layout and layout.columns else None
        where = self.blocks.offset + int(self.state[WHERE])
        return f"{self._at()} {explain(status, where, column, int(self.state[NEED]), data)}"

    def _truncation(self) -> str:
        """What is wrong with the end of the file, or ""."""
        if self.blocks.have == 0:
            return ""
        if self.blocks.have < 12:
            return (
                f"{self._at()} is cut off: the file ends {self.blocks.have} bytes into its header"
            )
        size = int(self.state[NEED])
        return (
            f"{self._at()} is cut off: it has {size} bytes of data by its header, the file has "
            f"{max(self.blocks.have - 12, 0)} bytes left"
        )

    def _end(self, broken: str, skip_damaged: bool) -> int:
        if not broken:
            return 0
        if not skip_damaged:
            raise DataError(broken)
        rest = self.blocks.size - self.blocks.offset - int(self.state[POS])
        _logger.warning("%s; the last %d bytes of the file are skipped", broken, rest)
        return 1


def read(
    name: str,
    file: BinaryIO,
    layout: Layout,
    *,
    check_crc: bool,
    skip_damaged: bool,
    num_records: int | None,
) -> tuple[Output, int]:
    """Reads a file into columns: (output, damaged records left out)."""
    blocks = Blocks(file, SLACK)
    output = Output(layout, min(_ROWS_AT_FIRST, blocks.size // 16 + 1))
    reader = Reader(name, blocks, output.state, num_records)
    return output, reader.read(output, check_crc, skip_damaged)


def count(name: str, file: BinaryIO) -> int:
    """Counts the records of a file."""
    return Reader(name, Blocks(file, SLACK), np.zeros(16, np.int64)).count()
