"""From a checkpoint straight into sharded arrays.

Each process reads the byte ranges that its own devices need, into buffers that XLA:CPU takes over
as they are; other devices get them by `device_put`, after which the buffers are freed.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from monolith_jax import storage
from monolith_jax.checkpoint.tf import _exchange, _read
from monolith_jax.checkpoint.tf._boxes import Box, sizes
from monolith_jax.checkpoint.tf._bundle import Bundle, open_bundle
from monolith_jax.errors import CheckpointError, did_you_mean

_log = logging.getLogger(__name__)

Progress = Callable[[str, float, int], None]


@dataclass
class _Pending:
    """A tensor whose bytes are being read: one buffer for each box that local devices hold."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    sharding: jax.sharding.Sharding
    boxes: dict[jax.Device, Box]
    buffers: dict[Box, np.ndarray]
    jobs: list[_read.Job]


def load(
    prefix: storage.Path,
    shardings: Mapping[str, jax.sharding.Sharding] | None = None,
    *,
    names: Iterable[str] | None = None,
    max_memory: int = 256 << 20,
    check_crc: bool = True,
    lossy: bool = False,
    progress: Progress | None = None,
) -> dict[str, jax.Array]:
    """Reads a checkpoint into sharded arrays.

    In a run of several processes all call it alike; each reads what its devices need (ranges less
    than 128 KiB apart as one). The crc32c of a stored part of which no process reads everything
    is combined from what all of them read.

    Args:
      prefix: local or gs://, without endings.
      shardings: tensor name -> sharding; a tensor that is not in it goes to the default device,
        or in a run of several processes to all of them alike.
      names: which tensors; by default those of `shardings`, or without it all but strings.
      max_memory: bytes of memory beyond the arrays: scratch for ranges, and on devices other than
        CPUs the buffers that are being sent (at least those of one tensor).
      check_crc: whether all that is read is checked.
      lossy: whether float64 and complex128 may be rounded to what jax holds; it matters only
        while `jax_enable_x64` is off.
      progress: called now and then with what is read, the fraction done and the bytes so far, as
        `monolith_jax.progress.ProgressLine.show` takes them.

    Returns:
      Name -> array, of the stored dtype. Where jax holds no 64-bit types (`jax_enable_x64` is
      off), integers become 32 bits if they all fit, and with `lossy` float64 becomes float32 and
      complex128 complex64.

    Raises:
      CheckpointError: a tensor is missing, damaged, a string, does not fit its sharding, holds
        integers that do not fit 32 bits, or would be rounded without `lossy`; the last before
        any data is read.

    Example:
      >>> import tempfile
      >>> from monolith_jax.checkpoint.tf import write_bundle
      >>> prefix = storage.join(tempfile.mkdtemp(), "model.ckpt-1")
      >>> write_bundle(prefix, {"table": np.ones((16, 4), np.float32)})
      >>> mesh = jax.make_mesh((jax.device_count(),), ("x",))
      >>> rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
      >>> load(prefix, {"table": rows})["table"].sharding == rows
      True
    """
    with open_bundle(prefix) as bundle:
        chosen = _chosen(bundle, shardings, names)
        if not lossy:
            _refuse_rounding(bundle, chosen)
        total = sum(bundle.entries[name].size for name in chosen)
        report = _Report(progress, total, os.path.basename(bundle.prefix))
        out = _load_all(bundle, chosen, max_memory, check_crc, report)
        report.end()
    return {name: out[name] for name in chosen}


def _load_all(
    bundle: Bundle,
    chosen: Mapping[str, jax.sharding.Sharding],
    max_memory: int,
    check_crc: bool,
    report: "_Report",
) -> dict[str, jax.Array]:
    out: dict[str, jax.Array] = {}
    unchecked: list[_read.Job] = []
    files, done = bundle._files, report.done
    for group in _groups(bundle, chosen, max_memory):
        pending = [_prepare(bundle, name, chosen[name]) for name in group]
        jobs = [job for one in pending for job in one.jobs]
        _read.read_jobs(files, jobs, check_crc=check_crc, max_memory=max_memory, done=done)
        if check_crc:
            unchecked += _read.check(files, jobs)
        out.update((one.name, _array(bundle, one)) for one in pending)
        if jax.default_backend() != "cpu":
            jax.block_until_ready([out[name] for name in group])
    if check_crc:
        _exchange.check_together(files, unchecked)
    return out


def _chosen(
    bundle: Bundle,
    shardings: Mapping[str, jax.sharding.Sharding] | None,
    names: Iterable[str] | None,
) -> dict[str, jax.sharding.Sharding]:
    given = shardings or {}
    if names is None:
        names = given or [n for n in bundle.entries if not bundle.entries[n].dtype.hasobject]
    out = {}
    for name in names:
        if name not in bundle.entries:
            near = did_you_mean(name, list(bundle.entries)[:5000])
            raise CheckpointError(f"{bundle.prefix}.index: no tensor {name!r}; {near}")
        if bundle.entries[name].dtype.hasobject:
            raise CheckpointError(f"{bundle.prefix}: tensor {name!r}: no array can hold strings")
        out[name] = given.get(name) or _default()
    return out


def _refuse_rounding(bundle: Bundle, names: Iterable[str]) -> None:
    for name in names:
        dtype = bundle.entries[name].dtype
        target = jax.dtypes.canonicalize_dtype(dtype)
        if dtype.kind in "fc" and target != dtype:
            raise CheckpointError(
                f"{bundle.prefix}: tensor {name!r}: its {dtype} would be rounded to {target}; turn"
                " jax_enable_x64 on, pass lossy=True, or leave it out of names"
            )


def _default() -> jax.sharding.Sharding:
    if jax.process_count() == 1:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _groups(bundle: Bundle, names: Iterable[str], max_memory: int) -> Iterator[list[str]]:
    """Yields the tensors in groups that may be in buffers at a time; on CPUs all at once."""
    group: list[str] = []
    held = 0
    for name in names:
        size = bundle.entries[name].size
        if group and held + size > max_memory and jax.default_backend() != "cpu":
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _prepare(bundle: Bundle, name: str, sharding: jax.sharding.Sharding) -> _Pending:
    info = bundle.entries[name]
    try:
        if isinstance(sharding, jax.sharding.NamedSharding):
            sharding.check_compatible_aval(info.shape)  # its rank, which the two below let pass
        indices = sharding.addressable_devices_indices_map(info.shape)
        sharding.shard_shape(info.shape)
    except (ValueError, IndexError) as error:  # jax's words for a spec that is too long
        text = f"the shape {info.shape} does not fit its sharding: {error}"
        raise CheckpointError(f"{bundle.prefix}: tensor {name!r}: {text}") from error
    boxes = {device: _box(index, info.shape) for device, index in indices.items()}
    different = list(dict.fromkeys(boxes.values()))
    jobs, buffers = bundle.jobs(name, different)
    held = dict(zip(different, buffers, strict=True))
    return _Pending(name, info.shape, info.dtype, sharding, boxes, held, jobs)


def _box(index: tuple[slice, ...] | None, shape: tuple[int, ...]) -> Box:
    parts = index if index is not None else (slice(None),) * len(shape)
    return tuple(part.indices(size)[:2] for part, size in zip(parts, shape, strict=True))


def _array(bundle: Bundle, one: _Pending) -> jax.Array:
    """Puts the buffers on their devices; replicas on several devices share the host's buffer."""
    host = {}
    for box, buffer in one.buffers.items():
        typed = buffer.reshape(-1).view(one.dtype).reshape(sizes(box))
        host[box] = _narrow(f"{bundle.prefix}: tensor {one.name!r}", typed)
    one.buffers.clear()
    devices = list(one.boxes)
    shards = [jax.device_put(host[one.boxes[device]], device) for device in devices]
    return jax.make_array_from_single_device_arrays(one.shape, one.sharding, shards)


def _narrow(where: str, value: np.ndarray) -> np.ndarray:
    target = jax.dtypes.canonicalize_dtype(value.dtype)
    if target == value.dtype:
        return value
    if value.dtype.kind in "iu" and value.size:
        limits = np.iinfo(target)
        if value.min() < limits.min or value.max() > limits.max:
            raise CheckpointError(
                f"{where}: its {value.dtype} do not fit {target}; turn jax_enable_x64 on"
            )
    return value.astype(target)


class _Report:
    """Counts the bytes that are read, and passes them on at every per cent."""

    def __init__(self, progress: Progress | None, total: int, what: str) -> None:
        self._progress, self._total, self._what = progress, max(total, 1), what
        self._bytes = self._shown = 0

    def done(self, name: str, size: int) -> None:
        self._bytes += size  # on several threads: a lost update would cost a per cent of display
        if self._progress and self._bytes - self._shown > self._total // 100:
            self._shown = self._bytes
            self._progress(self._what, min(self._bytes / self._total, 0.99), self._bytes)

    def end(self) -> None:
        if self._progress:
            self._progress(self._what, 1.0, self._bytes)
        _log.info("read %s: %d bytes", self._what, self._bytes)
