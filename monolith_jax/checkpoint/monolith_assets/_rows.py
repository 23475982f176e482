"""Entries of one table out of a stream, in batches of columns."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from monolith_jax.checkpoint.monolith_assets._entry import parse_entry
from monolith_jax.checkpoint.monolith_assets._layout import Layout, layout_of, program, write_entry
from monolith_jax.checkpoint.monolith_assets._stream import FRAME, LONGEST, Stream
from monolith_jax.checkpoint.tf._wire import Malformed

ROWS = 1 << 16  # of a batch, if they are not wide
_BYTES = 32 << 20  # of a batch, if it has more than one row
_SHORTEST = 9  # bytes of an entry: its id


@dataclass(frozen=True)
class Batch:
    """Entries as columns.

    Attributes:
      layout: what they have in common.
      words: uint32 [n, layout.width], the bits of float32.
      ints: int64 [n, 1 + layout.num_ints]: the id, the slices' integers, the time.
    """

    layout: Layout
    words: np.ndarray
    ints: np.ndarray


class TableReader:
    """Reads the entries of one table from a stream, which stands at the first.

    Args:
      stream: the records.
      count: how many are the table's; all of the stream if None.
      compiled: read with the compiled walk; else every entry in plain Python, far slower.
    """

    def __init__(self, stream: Stream, count: int | None, compiled: bool = True) -> None:
        self.stream, self.count, self.compiled = stream, count, compiled
        self.read = 0  # entries so far
        self.layout: Layout | None = None
        self._state = np.zeros(8, np.int64)  # position, rows, scratch

    def where(self) -> str:
        """Returns the place of the next entry, for an error."""
        return f"entry {self.read} {self.stream.where()}"

    def ended(self) -> bool:
        """Returns whether all of the table's entries were read.

        Raises:
          Malformed: the stream ends although some should follow.
        """
        if self.count is not None:
            if self.read < self.count and self.stream.ended():
                raise Malformed(f"the file ends after {self.read} of {self.count} entries")
            return self.read >= self.count
        return self.stream.ended()

    def batches(self) -> Iterator[Batch]:
        """Yields all entries, in order.

        Raises:
          Malformed: a damaged record, or an entry that is unlike the first.
        """
        if self.ended():
            return
        first = self.stream.pos
        entry = parse_entry(self.stream.take())
        self.stream.pos = first
        self.layout = layout_of(entry)
        steps = program(self.layout)
        while not self.ended():
            yield self._batch(self.layout, steps)

    def skip(self) -> None:
        """Goes past all entries without looking into them; their checksums are compared."""
        nothing = np.empty((0, 0), np.uint32)
        while not self.ended():
            if not self.compiled:
                self.stream.take()
                self.read += 1
                continue
            most = 1 << 60 if self.count is None else self.count - self.read
            self._walk(np.empty((0, 3), np.int64), nothing, nothing.astype(np.int64), most)
            self._state[1] = 0

    def _batch(self, layout: Layout, steps: np.ndarray) -> Batch:
        row_bytes = 4 * layout.width + 8 * (1 + layout.num_ints)
        most = max(1, min(ROWS, _BYTES // row_bytes))
        most = min(most, self.stream.most_left() // (FRAME + _SHORTEST) + 1)
        if self.count is not None:
            most = min(most, self.count - self.read)
        words = np.empty((most, layout.width), np.uint32)
        ints = np.empty((most, 1 + layout.num_ints), np.int64)
        self._state[1] = 0
        while self._state[1] < most:
            if self.compiled:
                self._walk(steps, words, ints, most)
            if self._state[1] == most:
                break
            if self.stream.ended():
                break
            self._one(layout, words, ints)
        rows = int(self._state[1])
        return Batch(layout, words[:rows], ints[:rows])

    def _walk(self, steps: np.ndarray, words: np.ndarray, ints: np.ndarray, most: int) -> None:
        """Reads until `most` rows, a record that is not ready, or one for `_one` to judge."""
        from monolith_jax.checkpoint.monolith_assets import _jit

        stream, state = self.stream, self._state
        while True:
            before, state[0] = int(state[1]), stream.pos
            why = _jit.walk(stream.buffer, stream.have, LONGEST, most, steps, words, ints, state)
            stream.pos = int(state[0])
            self.read += int(state[1] - before)
            if why != _jit.NEED_BYTES or stream.ended():
                break
            stream.more()
        if why in (_jit.BAD_HEADER, _jit.BAD_CRC):
            stream.take()  # says what is wrong
            raise Malformed("a damaged record")

    def _one(self, layout: Layout, words: np.ndarray, ints: np.ndarray) -> None:
        """Reads one entry in plain Python."""
        before = self.stream.pos
        try:
            entry = parse_entry(self.stream.take())
            found = layout_of(entry)
            if found != layout:
                raise Malformed(f"an entry with {found}; the first of the table has {layout}")
        except Malformed:
            self.stream.pos = before  # the error tells where it begins
            raise
        row = int(self._state[1])
        write_entry(entry, words[row], ints[row])
        self._state[1] += 1
        self.read += 1
