"""A checkpoint opened for reading: what it holds, and one tensor, a part, or many of them."""

import bisect
import math
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from monolith_jax import storage
from monolith_jax.checkpoint.tf import _boxes, _dtypes, _read, _strings
from monolith_jax.checkpoint.tf._errors import blame
from monolith_jax.checkpoint.tf._files import DataFiles
from monolith_jax.checkpoint.tf._index import SLICE_END, index_path, names, read_index
from monolith_jax.checkpoint.tf._ordered_code import slice_key
from monolith_jax.checkpoint.tf._plan import Target
from monolith_jax.checkpoint.tf._protos import Entry
from monolith_jax.checkpoint.tf._small import SMALL, SmallReader
from monolith_jax.checkpoint.tf._wire import Malformed
from monolith_jax.errors import CheckpointError, did_you_mean

_PLACE = operator.itemgetter(2, 3)  # data file and offset of an entry
_MOST_RANK = 63  # numpy has 64, and the bytes of an element are one
_MOST_ELEMENTS = 1 << 59  # of at most 16 bytes; sizes of 0 left out, as numpy counts them
_SCRATCH = 64 << 20


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a checkpoint says of a tensor, without its data.

    Attributes:
      dtype: numpy's; object for strings (bytes).
      shape: the sizes.
      partitions: the boxes, (start, stop) of each dimension, that it is stored in; () if whole.
      size: its bytes in memory; in the file for strings.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    partitions: tuple[_boxes.Box, ...]
    size: int


class _Entries(Mapping[str, TensorInfo]):
    """Name -> TensorInfo, made when asked for."""

    def __init__(self, bundle: "Bundle") -> None:
        self._bundle = bundle

    def __getitem__(self, name: str) -> TensorInfo:
        if name not in self._bundle._named:
            raise KeyError(name)
        return self._bundle._info(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._bundle._named)

    def __len__(self) -> int:
        return len(self._bundle._named)


class Bundle:
    """An open checkpoint. See `open_bundle`.

    Reading is for any number of threads. `close`, or the end of a `with` block, frees the files.
    Bytes are checked against their crc32c whenever all that it covers is read.

    Attributes:
      prefix: the path without its endings.
      entries: name -> TensorInfo, in the order of the names.
      shards: the number of data files.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.shards, self._entries = read_index(prefix)
        keys, found = list(self._entries), list(self._entries.values())
        first = bisect.bisect_left(keys, SLICE_END)  # keys ascend, those of slices come first
        self._named = dict(zip(names(keys[first:]), found[first:], strict=True))
        self.entries: Mapping[str, TensorInfo] = _Entries(self)
        self._files = DataFiles(prefix, self.shards)
        self._small = SmallReader(self._files)

    def read(self, name: str, *, check_crc: bool = True) -> np.ndarray:
        """Returns a tensor as an array of its own; strings as an object array of bytes.

        Args:
          name: as in `entries`.
          check_crc: whether the bytes are checked.

        Raises:
          CheckpointError: there is no such tensor, it is damaged, or of a dtype without arrays.
        """
        entry = self._named.get(name) or self._entry(name)
        value = self._small.array(name, entry, check_crc)
        if value is not None:
            return value
        return self._read_box(name, entry, _boxes.whole(entry.shape), check_crc)

    def read_slice(self, name: str, index: _boxes.Index, *, check_crc: bool = True) -> np.ndarray:
        """Returns `read(name)[index]`, reading little more than that.

        Args:
          name: as in `entries`.
          index: ints, slices and an Ellipsis, as in numpy (`numpy.s_[2:5, ..., 0]`).
          check_crc: whether those stored parts that are read as a whole are checked. A crc covers
            a stored part and cannot be checked for less than it.

        Raises:
          CheckpointError: as for `read`.
          IndexError: the index does not fit the shape.
        """
        entry = self._entry(name)
        if entry.dtype == _dtypes.STRING:
            return np.asarray(self.read(name, check_crc=check_crc)[index], object)
        box, pick = _boxes.of_index(index, entry.shape)
        return np.asarray(self._read_box(name, entry, box, check_crc)[pick])

    def read_many(
        self, names: Iterable[str] | None = None, *, check_crc: bool = True
    ) -> dict[str, np.ndarray]:
        """Returns tensors by name, all of them by default.

        Args:
          names: which; they are read in the order of the file.
          check_crc: whether the bytes are checked.

        Raises:
          CheckpointError: as for `read`.
        """
        found = self._named if names is None else {name: self._entry(name) for name in names}
        values: dict[str, Any] = dict.fromkeys(found)
        rest = []
        for _, name in sorted(zip(map(_PLACE, found.values()), found, strict=True)):
            value = self._small.array(name, found[name], check_crc)
            if value is None:
                rest.append(name)
            else:
                values[name] = value
        plain = [name for name in rest if found[name].dtype != _dtypes.STRING]
        whole = [(name, _boxes.whole(found[name].shape)) for name in plain]
        values.update(zip(plain, self._read_arrays(whole, check_crc), strict=True))
        for name in rest:
            if values[name] is None:
                values[name] = self.read(name, check_crc=check_crc)
        return values

    def close(self) -> None:
        """Closes the data files."""
        self._files.close()

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _entry(self, name: str) -> Entry:
        found = self._named.get(name)
        if found is None:
            near = did_you_mean(name, self._named) if len(self._named) < 5000 else "see .entries"
            raise CheckpointError(f"{index_path(self.prefix)}: no tensor {name!r}; {near}")
        return found

    def _blame(self, name: str, entry: Entry | None = None) -> Any:
        path = index_path(self.prefix) if entry is None else self._files.path(entry.shard)
        return blame(f"{path}: tensor {name!r}")

    def _info(self, name: str) -> TensorInfo:
        entry = self._entry(name)
        with self._blame(name):
            dtype = _dtypes.to_numpy(entry.dtype)
            parts = tuple(_boxes.of_extents(extents, entry.shape) for extents in entry.slices)
        size = math.prod(entry.shape) * dtype.itemsize if entry.dtype != _dtypes.STRING else 0
        return TensorInfo(dtype, entry.shape, parts, size or entry.size)

    def _strings(self, name: str, entry: Entry, data: bytes, check_crc: bool) -> np.ndarray:
        with self._blame(name, entry):
            _check_rank(entry)
            count = math.prod(entry.shape)
            values = _strings.decode(data, count, entry.crc if check_crc else None)
        out = np.empty(count, object)
        out[:] = values
        with self._blame(name):
            return _reshaped(out, entry.shape)

    def _read_box(self, name: str, entry: Entry, box: _boxes.Box, check_crc: bool) -> np.ndarray:
        if entry.dtype == _dtypes.STRING and not entry.slices:
            with self._blame(name, entry):
                _check_fits(entry, self._files)
                if entry.size <= SMALL:
                    data = self._small.content(name, entry)
                else:
                    data = bytearray(entry.size)
                    self._files.file(entry.shard).read_into(memoryview(data), entry.offset)
            return self._strings(name, entry, bytes(data), check_crc)
        return self._read_arrays([(name, box)], check_crc)[0]

    def _read_arrays(
        self, wanted: list[tuple[str, _boxes.Box]], check_crc: bool
    ) -> list[np.ndarray]:
        """Reads a box of each of some tensors that are not strings, all on the same threads."""
        made = [self.jobs(name, [box]) for name, box in wanted]
        jobs = [job for some, _ in made for job in some]
        _read.read_jobs(self._files, jobs, check_crc=check_crc, max_memory=_SCRATCH)
        if check_crc:
            _read.check(self._files, jobs)
        out = []
        for (name, box), (_, (raw,)) in zip(wanted, made, strict=True):
            with self._blame(name):
                flat = raw.reshape(-1).view(_dtypes.to_numpy(self._entry(name).dtype))
                out.append(_reshaped(flat, _boxes.sizes(box)))
        return out

    def jobs(self, name: str, boxes: list[_boxes.Box]) -> tuple[list[_read.Job], list[np.ndarray]]:
        """Returns the work of reading boxes of a tensor, and the arrays of uint8 to be filled.

        Everything that the index claims is checked against the files before memory is taken.
        """
        entry = self._entry(name)
        with self._blame(name):
            _check_rank(entry)
            dtype = _dtypes.to_numpy(entry.dtype)
            if dtype.hasobject:
                raise Malformed("it holds strings cut into parts, which cannot be read")
            stored = self._stored(name, entry)
            for _, part, part_box in stored:
                size = _boxes.volume(part_box) * dtype.itemsize
                if size != part.size:
                    raise Malformed(f"{part.size} bytes are stored for {size}")
        for part_name, part, _ in stored:
            with self._blame(part_name, part):
                _check_fits(part, self._files)
        inner = (0, dtype.itemsize)
        wanted = [(*box, inner) for box in boxes]
        out = [_read.aligned(_boxes.volume(box)).reshape(_boxes.sizes(box)) for box in wanted]
        jobs = [
            _read.Job(part_name, part, _boxes.sizes(origin), _targets(origin, wanted, out))
            for part_name, part, part_box in stored
            for origin in [(*part_box, inner)]
        ]
        # An empty part gives nothing to anybody, but has a checksum, of no bytes.
        return [job for job in jobs if job.targets or not job.entry.size], out

    def _stored(self, name: str, entry: Entry) -> list[tuple[str, Entry, _boxes.Box]]:
        """Returns (name, entry, box) of each stored part of a tensor."""
        if not entry.slices:
            return [(name, entry, _boxes.whole(entry.shape))]
        found = []
        key = name.encode("utf-8", "surrogateescape")
        for extents in entry.slices:
            box = _boxes.of_extents(extents, entry.shape)
            part = self._entries.get(slice_key(key, extents))
            if part is None:
                raise Malformed(f"its part {box} is not in the index")
            if part.dtype != entry.dtype or part.shape != _boxes.sizes(box) or part.slices:
                raise Malformed(f"its part {box} is of another shape or dtype")
            found.append((f"{name}{list(box)}", part, box))
        _boxes.check_tiling([box for _, _, box in found], entry.shape)
        return found


def open_bundle(prefix: storage.Path) -> Bundle:
    """Opens a TensorFlow checkpoint; only its index is read.

    Args:
      prefix: local or gs://, as `tf.train.Saver.save` returned it: the path without `.index`.

    Returns:
      What it holds; see `Bundle`.

    Raises:
      CheckpointError: there is no checkpoint, or its index is damaged, big endian, or older than
        V2; the message names the file.

    Example:
      >>> import tempfile
      >>> from monolith_jax.checkpoint.tf import write_bundle
      >>> prefix = storage.join(tempfile.mkdtemp(), "model.ckpt-1")
      >>> write_bundle(prefix, {"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
      >>> with open_bundle(prefix) as bundle:
      ...     print(bundle.entries["w"].shape, bundle.read_slice("w", np.s_[1, :2]))
      (2, 3) [3. 4.]
    """
    return Bundle(os.fspath(prefix))


def _targets(origin: _boxes.Box, wanted: list[_boxes.Box], out: list[np.ndarray]) -> list[Target]:
    """Returns what a stored part at `origin` gives to each of the wanted boxes."""
    targets = []
    for box, array in zip(wanted, out, strict=True):
        both = _boxes.meet(box, origin)
        if both is not None:
            local = tuple((a - o, b - o) for (a, b), (o, _) in zip(both, origin, strict=True))
            targets.append(Target(local, array[_boxes.within(both, box)]))
    return targets


def _check_rank(entry: Entry) -> None:
    if len(entry.shape) > _MOST_RANK:
        raise Malformed(f"it has {len(entry.shape)} dimensions; {_MOST_RANK} are the most")
    if math.prod(size for size in entry.shape if size) > _MOST_ELEMENTS:
        raise Malformed(f"its shape {entry.shape} is too large")


def _check_fits(entry: Entry, files: DataFiles) -> None:
    size = files.file(entry.shard).size
    if entry.offset + entry.size > size:
        raise Malformed(_beyond(entry, size))


def _beyond(entry: Entry, size: int) -> str:
    end = entry.offset + entry.size
    return f"it should lie at bytes {entry.offset}..{end}, but the file ends at {size}"


def _reshaped(flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return flat.reshape(shape)
    except ValueError as error:
        raise Malformed(f"its shape {shape} fits no array: {error}") from error
