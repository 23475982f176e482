"""TFRecords, one after the other, over pieces of bytes.

A record is `u64 length, u32 masked crc32c of it, data, u32 masked crc32c of the data`.
"""

import numpy as np

from monolith_jax.checkpoint.monolith_assets._blocks import Blocks
from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._wire import Malformed

LONGEST = 16 << 20  # bytes of a record; an embedding of 800,000 numbers with four slots each
FRAME = 16  # bytes around a record's data
_SLACK = 32  # readable bytes behind the end


class Stream:
    """A buffer over blocks, and the place of the next record in it.

    Attributes:
      buffer: uint8; the next record begins at `pos`, `have` bytes count.
      pos: int, in the buffer.
      have: int.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.buffer = np.empty(_SLACK, np.uint8)
        self.pos = self.have = 0
        self._before = 0  # bytes of the stream before the buffer

    def need(self, count: int) -> bool:
        """Makes `count` bytes ready from `pos` on; returns False if the stream ends before."""
        while self.have - self.pos < count:
            if count - (self.have - self.pos) > self.blocks.most_left():
                return False
            block = self.blocks.next()
            if block is None:
                return False
            self._append(block)
        return True

    def more(self) -> None:
        """Makes the next record ready.

        Raises:
          Malformed: the stream ends before it does.
        """
        left = self.have - self.pos
        if not self.need(12):
            raise Malformed(f"the file ends {left} bytes into the header of a record")
        length = self._length()
        if not self.need(length + FRAME):
            left = self.have - self.pos + self.blocks.most_left()
            raise Malformed(
                f"a record of {length} bytes is cut off: at most {max(0, left - 12)} are left"
            )

    def ended(self) -> bool:
        """Returns whether there is nothing after the last record."""
        return not self.need(1)

    def take(self) -> bytes:
        """Returns the data of the next record, and goes past it.

        Raises:
          Malformed: it is cut off or damaged; `pos` stays.
        """
        self.more()
        start = self.pos + 12
        end = start + self._length()
        data = self.buffer[start:end].tobytes()
        if mask(crc32c(data)) != int.from_bytes(self.buffer[end : end + 4].tobytes(), "little"):
            raise Malformed(f"a record of {len(data)} bytes does not match its checksum")
        self.pos = end + 4
        return data

    def most_left(self) -> int:
        """Returns how many bytes from `pos` on there can be at the most."""
        return self.have - self.pos + self.blocks.most_left()

    def where(self) -> str:
        """Returns the place of the next record, for an error."""
        return f"at byte {self._before + self.pos}{self.blocks.where()}"

    def _length(self) -> int:
        """Returns the length in the header at `pos`, checked."""
        head = self.buffer[self.pos : self.pos + 12].tobytes()
        length = int.from_bytes(head[:8], "little")
        if mask(crc32c(head[:8])) != int.from_bytes(head[8:], "little"):
            raise Malformed("the length of a record does not match its checksum")
        if length > LONGEST:
            raise Malformed(f"a record of {length} bytes; the longest that is read is {LONGEST}")
        return length

    def _append(self, block: np.ndarray) -> None:
        kept = self.buffer[self.pos : self.have]
        room = kept.size + block.size
        if self.buffer.size < room + _SLACK:
            target = np.empty(max(room + room // 2, 1 << 16) + _SLACK, np.uint8)
        else:
            target = self.buffer
        target[: kept.size] = kept  # numpy moves overlapping bytes rightly
        target[kept.size : room] = block
        self._before += self.pos
        self.buffer, self.pos, self.have = target, 0, room
