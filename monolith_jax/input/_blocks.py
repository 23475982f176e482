"""A window of bytes that slides over a file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO, TypeAlias

import numpy as np

from monolith_jax.errors import DataError

Source: TypeAlias = str | os.PathLike[str] | bytes

BLOCK = 1 << 18
"""Bytes read at once: what a walk touches stays in the second-level cache."""


class Blocks:
    """The bytes `buffer[:have]` of a file, from `offset` on.

    Attributes:
      buffer: uint8, with `slack` bytes more than `have` ever is.
      have: the number of bytes at hand.
      offset: the place of `buffer[0]` in the file.
      size: the size of the file.
    """

    def __init__(self, file: BinaryIO, slack: int) -> None:
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self.have, self.offset = 0, 0
        self._file, self._slack = file, slack
        self.buffer = np.empty(min(BLOCK, self.size) + slack, np.uint8)

    def slide(self, keep: int) -> bool:
        """Drops the bytes before `keep`, and reads as many as fit; whether any came.

        The buffer doubles when all of it is kept: a length that claims more than the file has
        never allocates more than twice the file.
        """
        kept, room = self.have - keep, len(self.buffer) - self._slack
        old = self.buffer
        if kept == room:
            self.buffer = np.empty(max(2 * room, 1024) + self._slack, np.uint8)
        self.buffer[:kept] = old[keep : self.have]
        self.offset += keep
        self.have = kept
        target = self.buffer.data[: len(self.buffer) - self._slack]
        while self.have < len(target):
            got = self._file.readinto(target[self.have :])  # type: ignore[attr-defined]
            if not got:
                break
            self.have += got
        return self.have > kept


@contextmanager
def open_source(source: Source) -> Iterator[BinaryIO]:
    """Opens a path, local or gs://, or bytes, for reading.

    Raises:
      DataError: a path that cannot be read, named with the reason.
    """
    if isinstance(source, bytes):
        yield BytesIO(source)
        return
    path = os.fspath(source)
    if path.startswith("gs://"):
        from monolith_jax import storage

        yield BytesIO(storage.read_bytes(path))
        return
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115  (closed below, errors told apart)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    with file:
        yield file  # type: ignore[misc]


def source_name(source: Source) -> str:
    """Returns what an error message calls `source`."""
    return "<bytes>" if isinstance(source, bytes) else os.fspath(source)
