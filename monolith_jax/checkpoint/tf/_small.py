"""Small tensors, cut out of a window of their file: one read serves many of them."""

import numpy as np

from monolith_jax.checkpoint.tf import _dtypes
from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._errors import blame
from monolith_jax.checkpoint.tf._files import DataFiles
from monolith_jax.checkpoint.tf._protos import Entry

SMALL = 64 << 10  # bytes
_WINDOW = 256 << 10


class SmallReader:
    """Reads small tensors of a bundle; for any number of threads."""

    def __init__(self, files: DataFiles) -> None:
        self._files = files
        self._held: tuple[int, int, bytearray] = (-1, 0, bytearray())  # data file, start, bytes

    def array(self, name: str, entry: Entry, check_crc: bool) -> np.ndarray | None:
        """Returns a tensor as an array of its own.

        None if it is not small, not of one part, of strings, or not as its entry says: so that
        the usual case takes few steps, the others, and their errors, are left to the caller.
        """
        number, shape, shard, offset, size, stored, slices = entry
        dtype = _dtypes.PLAIN.get(number)
        if dtype is None or size > SMALL or slices:
            return None
        held, start, window = self._held
        at = offset - start
        if held != shard or at < 0 or at + size > len(window):
            at, window = 0, self._fill(name, entry)
        data = window[at : at + size]
        if check_crc and mask(crc32c(data)) != stored:
            return None
        try:
            value = np.ndarray(shape, dtype, data)
        except (ValueError, TypeError, OverflowError):
            return None
        return value if value.nbytes == size else None

    def content(self, name: str, entry: Entry) -> bytearray:
        """Returns a copy of the bytes of a small entry; fewer if the file ends before."""
        held, start, window = self._held
        at = entry.offset - start
        if held != entry.shard or at < 0 or at + entry.size > len(window):
            at, window = 0, self._fill(name, entry)
        return window[at : at + entry.size]

    def _fill(self, name: str, entry: Entry) -> bytearray:
        """Returns the bytes from an entry's first on, and keeps them for those after it."""
        with blame(f"{self._files.path(entry.shard)}: tensor {name!r}"):
            file = self._files.file(entry.shard)
            window = bytearray(max(min(_WINDOW, file.size - entry.offset), 0))
            if window:
                file.read_into(memoryview(window), entry.offset)
        self._held = (entry.shard, entry.offset, window)
        return window
