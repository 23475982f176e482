"""A checkpoint being written: by one process, or by several, each its own data file."""

import os
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt

from monolith_jax import storage
from monolith_jax.checkpoint.tf import _boxes, _dtypes, _strings
from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._errors import blame
from monolith_jax.checkpoint.tf._files import data_path
from monolith_jax.checkpoint.tf._index import SLICE_KEY, index_path
from monolith_jax.checkpoint.tf._merge import part_path, publish_index, publish_part
from monolith_jax.checkpoint.tf._ordered_code import slice_key
from monolith_jax.checkpoint.tf._output import Output, remove
from monolith_jax.checkpoint.tf._protos import Entry, Extents
from monolith_jax.checkpoint.tf._wire import Malformed
from monolith_jax.errors import CheckpointError, did_you_mean

_CHUNK = 4 << 20


class BundleWriter:
    """Writes a TensorFlow checkpoint, or one data file of it.

    Nothing is visible before `finish`; leaving a `with` block by an error discards everything. A
    killed process leaves at most hidden files that end in `.unfinished`, and data files without
    an index. A checkpoint that was there under the same prefix is gone from the moment when the
    first data file of the new one is put in its place; its other data files are deleted once the
    new index is there.

    With `shards` above 1 there is one writer for each data file, in any processes; when all have
    finished, one process calls `merge_bundle`.

    Args:
      prefix: local or gs://, without endings.
      shard: the number of this writer's data file.
      shards: how many data files there are.

    Example:
      >>> import tempfile
      >>> from monolith_jax.checkpoint.tf import merge_bundle, open_bundle
      >>> prefix = storage.join(tempfile.mkdtemp(), "model.ckpt-1")
      >>> for shard in range(2):
      ...     with BundleWriter(prefix, shard=shard, shards=2) as writer:
      ...         rows = np.full((2, 3), shard, np.float32)
      ...         writer.add_slice("table", (4, 3), np.s_[2 * shard : 2 * shard + 2], rows)
      >>> merge_bundle(prefix, 2)
      >>> open_bundle(prefix).read("table")[:, 0]
      array([0., 0., 1., 1.], dtype=float32)
    """

    def __init__(self, prefix: storage.Path, *, shard: int = 0, shards: int = 1) -> None:
        if not 0 <= shard < shards:
            raise CheckpointError(f"{os.fspath(prefix)}: no data file {shard} of {shards}")
        self.prefix, self._shard, self._shards = os.fspath(prefix), shard, shards
        self._entries: dict[bytes, Entry] = {}
        self._offset, self._open = 0, True
        with blame(self.prefix):
            if shards > 1:  # what a run that was killed left must not pass for this writer's
                remove(part_path(self.prefix, shard, shards))
            self._out = Output(data_path(self.prefix, shard, shards))

    def add(self, name: str, value: npt.ArrayLike) -> None:
        """Appends a tensor.

        Args:
          name: not empty, new.
          value: an array of any dtype that TensorFlow has; strings as bytes or str. Other byte
            orders and layouts are converted.

        Raises:
          CheckpointError: the name is taken or empty, or there is no such dtype.
        """
        self._add(self._key(name), name, np.asarray(value))

    def add_slice(
        self, name: str, shape: Sequence[int], index: _boxes.Index, value: npt.ArrayLike
    ) -> None:
        """Appends a part of a partitioned tensor.

        Args:
          name: of the whole tensor.
          shape: of the whole tensor.
          index: where the part lies, slices of step 1; a bare `:` is stored as "all of it", as
            TensorFlow's slice `-`.
          value: the part.

        Raises:
          CheckpointError: it does not fit, or disagrees with the parts before.
        """
        array, shape = np.asarray(value), tuple(int(size) for size in shape)
        extents = _extents(name, index, shape)
        box = _boxes.of_extents(extents, shape)
        if array.shape != _boxes.sizes(box):
            raise CheckpointError(f"{self._at(name)}: {array.shape} is not the shape of {box}")
        if box == _boxes.whole(shape):
            return self.add(name, array)
        key = name.encode("utf-8", "surrogateescape")
        before = self._entries.get(key, Entry(self._dtype(name, array), shape))
        if (before.dtype, before.shape) != (self._dtype(name, array), shape) or before.size:
            raise CheckpointError(f"{self._at(name)}: a part of another shape or dtype")
        self._add(slice_key(key, extents), f"{name}{list(box)}", array)
        self._entries[key] = before._replace(slices=(*before.slices, extents))

    def finish(self) -> None:
        """Puts the files in their places, the index last."""
        self._open = False
        try:
            with blame(self.prefix):
                remove(index_path(self.prefix))  # it may name the file that comes now
                self._out.publish()
                if self._shards == 1:
                    publish_index(self.prefix, 1, self._entries)
                else:
                    publish_part(self.prefix, self._shard, self._shards, self._entries)
        except BaseException:
            self._out.discard()
            raise

    def discard(self) -> None:
        """Deletes what was written."""
        self._open = False
        self._out.discard()

    def __enter__(self) -> "BundleWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open and kind is None:
            self.finish()
        elif self._open:
            self.discard()

    def _at(self, name: str) -> str:
        return f"{self.prefix}: tensor {name!r}"

    def _key(self, name: str) -> bytes:
        key = name.encode("utf-8", "surrogateescape")
        if not key or key.startswith(SLICE_KEY):
            raise CheckpointError(f"{self._at(name)}: not a name")
        return key

    def _dtype(self, name: str, array: np.ndarray) -> int:
        number = _dtypes.to_number(array.dtype)
        if number is None:
            hint = did_you_mean(str(array.dtype), _dtypes.names())
            raise CheckpointError(f"{self._at(name)}: TensorFlow has no {array.dtype}; {hint}")
        return number

    def _add(self, key: bytes, name: str, array: np.ndarray) -> None:
        if not self._open:
            raise CheckpointError(f"{self._at(name)}: the checkpoint is finished")
        if key in self._entries:
            raise CheckpointError(f"{self._at(name)}: written twice")
        number = self._dtype(name, array)
        with blame(self._at(name)):
            if number == _dtypes.STRING:
                data, crc = _strings.encode(_strings_of(array))
                self._out.write(data)
                size = len(data)
            else:
                size, crc = self._write(array)
        self._entries[key] = Entry(number, array.shape, 0, self._offset, size, crc)
        self._offset += size

    def _write(self, array: np.ndarray) -> tuple[int, int]:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        view = memoryview(little.reshape(-1).view(np.uint8).data)
        crc = 0
        for start in range(0, len(view), _CHUNK):
            piece = view[start : start + _CHUNK]
            crc = crc32c(piece, crc)
            self._out.write(piece)
        return len(view), mask(crc)


def write_bundle(prefix: storage.Path, tensors: Mapping[str, npt.ArrayLike]) -> None:
    """Writes a checkpoint of one data file, the tensors in the order of their names.

    For equal tensors the files equal, byte for byte, those of `tf.train.Saver`.

    Args:
      prefix: local or gs://, without endings.
      tensors: name -> array; see `BundleWriter.add`.

    Raises:
      CheckpointError: it cannot be written; then nothing is there that was not before.
    """
    with BundleWriter(prefix) as writer:
        for name in sorted(tensors, key=lambda name: name.encode("utf-8", "surrogateescape")):
            writer.add(name, tensors[name])


def _extents(name: str, index: _boxes.Index, shape: tuple[int, ...]) -> Extents:
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in parts or len(parts) > len(shape):
        raise CheckpointError(f"tensor {name!r}: {index} is no slice of the shape {shape}")
    parts += [slice(None)] * (len(shape) - len(parts))
    extents = []
    for part, size in zip(parts, shape, strict=True):
        if part == slice(None):
            extents.append((0, -1))
            continue
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise CheckpointError(f"tensor {name!r}: {part} is no slice of step 1")
        start, stop, _ = part.indices(size)
        extents.append((start, max(stop - start, 0)))
    return tuple(extents)


def _strings_of(array: np.ndarray) -> list[bytes]:
    values: Iterable[object] = array.reshape(-1).tolist()
    out = []
    for value in values:
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(value, bytes):
            raise Malformed(f"an object array may hold bytes and str, not {type(value).__name__}")
        out.append(value)
    return out
