"""The bytes of an asset in pieces: as they lie in the file, or out of TF's snappy stream.

The stream is `[u32 big-endian: length of the block][raw snappy block]*`, to the end of the file
(tensorflow: core/lib/io/snappy/snappy_outputbuffer.h).
"""

from typing import BinaryIO, Protocol

import numpy as np

from monolith_jax.checkpoint.tf import _snappy
from monolith_jax.checkpoint.tf._wire import Malformed, read_varint

PIECE = 4 << 20  # bytes read at a time
LARGEST_BLOCK = 16 << 20  # Monolith itself reads none above 10 MiB
_MOST_GAIN = 22  # of snappy: a copy of 64 bytes takes 3


class Blocks(Protocol):
    """Where a stream's bytes come from."""

    def next(self) -> np.ndarray | None:
        """Returns the next bytes, uint8 [n], n > 0, or None at the end."""

    def most_left(self) -> int:
        """Returns how many bytes can still come at the most."""

    def where(self) -> str:
        """Returns where in the file the last piece was, for an error."""


class PlainBlocks:
    """A file's bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def next(self) -> np.ndarray | None:
        """Returns up to PIECE bytes."""
        data = self._file.read(min(PIECE, self._left))
        self._left -= len(data)
        return np.frombuffer(data, np.uint8) if data else None

    def most_left(self) -> int:
        """Returns the rest of the file."""
        return self._left

    def where(self) -> str:
        """Returns nothing: the place in the stream is the place in the file."""
        return ""


class SnappyBlocks:
    """What a snappy stream holds.

    Args:
      file: the file, at its start.
      size: its bytes.
      compiled: decompress with the compiled kernel; else in plain Python, 100 times slower.
    """

    def __init__(self, file: BinaryIO, size: int, compiled: bool = True) -> None:
        self._file, self._left, self._compiled = file, size, compiled
        self._size, self._at = size, 0

    def next(self) -> np.ndarray | None:
        """Returns the bytes of the next block that has any.

        Raises:
          Malformed: the stream is cut off, or a block is damaged.
        """
        while self._left:
            self._at = self._size - self._left
            head = self._take(4)
            length = int.from_bytes(head, "big")
            if length > min(self._left, LARGEST_BLOCK):
                raise Malformed(
                    f"a snappy block of {length} bytes; the file has {self._left} left, and the "
                    f"largest that is read is {LARGEST_BLOCK}"
                )
            block = self._unsnap(self._take(length))
            if block.size:
                return block
        return None

    def most_left(self) -> int:
        """Returns what snappy can make of the rest of the file at the most."""
        return self._left * _MOST_GAIN

    def where(self) -> str:
        """Returns where the last block begins."""
        return f" of what is compressed (block at byte {self._at} of the file)"

    def _take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise Malformed("the snappy stream is cut off")
        self._left -= length
        return data

    def _unsnap(self, data: bytes) -> np.ndarray:
        if not data:
            raise Malformed("a snappy block without bytes")
        length, body = read_varint(data, 0)
        if length > min(_MOST_GAIN * len(data), LARGEST_BLOCK):
            raise Malformed(f"a snappy block of {len(data)} bytes claims to hold {length}")
        if not self._compiled:
            return np.frombuffer(_snappy.decompress(data), np.uint8)
        from monolith_jax.checkpoint.monolith_assets import _jit

        out = np.empty(length, np.uint8)
        filled = _jit.unsnap(np.frombuffer(data, np.uint8), body, len(data), out)
        if filled == length:
            return out
        reasons = {
            _jit.CUT: "is cut off",
            _jit.TOO_LONG: f"holds more than the {length} bytes that it claims",
            _jit.BEFORE_START: "copies from before its start",
        }
        raise Malformed(
            f"a snappy block {reasons.get(filled, f'holds {filled} bytes, not {length}')}"
        )
