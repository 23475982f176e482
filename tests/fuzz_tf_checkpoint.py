"""Fuzzes the reader of TensorFlow's checkpoints: a typed error or the right value, in bounds.

    python tests/fuzz_tf_checkpoint.py --count 100000 --seed 0        # all kinds in turn
    python tests/fuzz_tf_checkpoint.py --kind fields --seed 17 --count 1     # one case again

Each case is a checkpoint from `fuzz_tf_forge`. It is opened, its entries are compared with a slow
decoder's, and its tensors are read one by one, as slices, all at once, and by `load` into sharded
arrays. Whatever is read must be what plain slices of the files say; whatever is not must end in a
CheckpointError that names the file and the tensor. The process may take 512 MiB of address space
more than at the start, and a case 10 seconds. tests/checkpoint/tf/test_hostile.py runs some.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import fuzz_tf_forge as forge
import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.checkpoint.tf import Bundle, _dtypes, _protos, load, open_bundle
from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._ordered_code import slice_key
from monolith_jax.checkpoint.tf._table import read_table
from monolith_jax.errors import CheckpointError

SECONDS = 10
MEMORY = 512 << 20
_SPECS = (P(), P("x"), P(None, "x"), P("x", None, None))
_COMPLEX = {8: np.complex64, 18: np.complex128}


class TooLong(BaseException):
    """A case took more than its time; no `except Exception` may swallow it."""


def write(files: forge.Files, folder: Path) -> Path:
    """Puts a case's files into a folder, in the place of the case before; returns the prefix."""
    prefix = folder / "x"
    Path(f"{prefix}.index").write_bytes(files.index)
    for shard, content in enumerate(files.data):
        path = Path(f"{prefix}.data-{shard:05d}-of-{forge.SHARDS:05d}")
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        if content == forge.FOLDER:
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
    return prefix


def run_case(sample: forge.Sample, folder: Path, kind: str, seed: int) -> Counter[str]:
    """Runs one case; returns what came of it, how often. A violation is raised."""
    files, rng = forge.forge(sample, kind, seed)
    prefix = write(files, folder)
    counts: Counter[str] = Counter()
    try:
        bundle = open_bundle(prefix)
    except CheckpointError as error:
        _named(error, f"{prefix}.index")
        if rng.random() < 0.1:
            _refused_alike(prefix)
        return Counter({"index refused": 1})
    with bundle:
        _check_entries(bundle, files)
        entries = sample.entries if kind in forge.SOUND_INDEX else bundle._entries
        values = {name: _read(bundle, name, counts) for name in bundle.entries}
        for name, value in values.items():
            if value is not None:
                truth = _truth(files, entries, name.encode("utf-8", "surrogateescape"))
                assert _same(value, truth), f"{name!r}: {value} is not {truth}"
            _read_part(bundle, name, value, rng)
        _read_all(bundle, values)
    _load(prefix, values, rng, counts)
    return counts


def _refused_alike(prefix: Path) -> None:
    """`load` of an index that cannot be opened must end alike."""
    try:
        load(prefix)
    except CheckpointError as error:
        _named(error, f"{prefix}.index")
    else:
        raise AssertionError("load opened what open_bundle refused")


def _check_entries(bundle: Bundle, files: forge.Files) -> None:
    """Compares the entries, decoded all at once, with each decoded by itself, field by field."""
    found = bundle._entries
    pairs = [(key, value) for key, value in read_table(files.index) if key]
    assert list(found) == [key for key, _ in pairs]
    for key, value in pairs:
        entry = _protos._decode_any(value)
        assert found[key] == entry, f"{key!r}: {found[key]} is not {entry}"


def _named(error: Exception, file: object, *names: str) -> None:
    """Fails unless the error names the file and, if there are names, one of them."""
    text = str(error)
    if str(file) not in text:
        raise AssertionError(f"names no file: {text}")
    if names and not any(repr(name)[1:-1] in text for name in names):
        raise AssertionError(f"names none of {names}: {text}")


def _read(bundle: Bundle, name: str, counts: Counter[str]) -> np.ndarray | None:
    try:
        info = bundle.entries[name]
        value = bundle.read(name)
    except CheckpointError as error:
        _named(error, bundle.prefix, name)
        counts["read refused"] += 1
        return None
    assert (value.shape, value.dtype) == (info.shape, info.dtype)
    counts["read"] += 1
    return value


def _truth(files: forge.Files, entries: dict[bytes, Any], key: bytes) -> np.ndarray:
    """Returns a tensor by plain slices of the files; fails where the files do not hold it."""
    entry = entries[key]
    if entry.dtype == _dtypes.STRING:
        return _strings(_stored(files, entry), entry.shape)
    dtype = _dtypes.to_numpy(entry.dtype)
    if not entry.slices:
        return np.frombuffer(_stored(files, entry), dtype).reshape(entry.shape)
    out, seen = np.zeros(entry.shape, dtype), np.zeros(entry.shape, int)
    for extents in entry.slices:
        part = entries[slice_key(key, extents)]
        where = tuple(
            slice(None) if length < 0 else slice(start, start + length) for start, length in extents
        )
        assert (part.dtype, part.shape) == (entry.dtype, out[where].shape)
        out[where] = np.frombuffer(_stored(files, part), dtype).reshape(part.shape)
        seen[where] += 1
    assert (seen == 1).all()
    return out


def _stored(files: forge.Files, entry: Any) -> bytes:
    content = files.data[entry.shard] or b""
    data = content[entry.offset : entry.offset + entry.size]
    assert len(data) == entry.size
    if entry.dtype != _dtypes.STRING:
        assert mask(crc32c(data)) == entry.crc
    return data


def _strings(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Returns strings; their lengths, the crc of these, then their bytes."""
    out = np.empty(shape, object)
    lengths, at = [], 0
    for _ in range(out.size):
        shift = length = 0
        while True:
            byte, at = data[at], at + 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        lengths.append(length)
    at += 4
    for i, length in enumerate(lengths):
        out.reshape(-1)[i] = data[at : at + length]
        at += length
    assert at == len(data)
    return out


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.tolist() == b.tolist() if a.dtype.hasobject else a.tobytes() == b.tobytes()


def _read_part(bundle: Bundle, name: str, value: np.ndarray | None, rng: random.Random) -> None:
    """Reads a slice: a part of the value, or where there is none anything of the right shape."""
    try:
        shape = bundle.entries[name].shape
    except CheckpointError as error:
        return _named(error, bundle.prefix, name)
    index: list[Any] = []
    for size in shape:
        start = rng.randrange(max(1, min(size, 8)))
        length, step = rng.randrange(3), rng.choice((1, 1, 2, -1))
        plain = size == 0 or rng.random() < 0.7
        index.append(slice(start, start + length, step) if plain else start)
    if rng.random() < 0.1:
        index = [...]
    try:
        found = bundle.read_slice(name, tuple(index), check_crc=rng.random() < 0.8)
    except CheckpointError as error:
        return _named(error, bundle.prefix, name)
    except IndexError:  # numpy's, which takes strings apart: its message says what does not fit
        assert value is None
        return None
    if value is not None:
        assert _same(found, np.asarray(value[tuple(index)], value.dtype)), (name, index)
    else:
        assert found.dtype == bundle.entries[name].dtype
    return None


def _read_all(bundle: Bundle, values: dict[str, np.ndarray | None]) -> None:
    try:
        found = bundle.read_many()
    except CheckpointError as error:
        bad = [name for name, value in values.items() if value is None]
        return _named(error, bundle.prefix, *(bad or ["a tensor that read could not read"]))
    assert list(found) == list(values)
    for name, value in values.items():
        assert value is not None, f"read_many read {name!r}, read did not"
        assert _same(found[name], value), name
    return None


def _load(
    prefix: Path, values: dict[str, np.ndarray | None], rng: random.Random, counts: Counter[str]
) -> None:
    """Loads all with sound values at once, and some by themselves, onto random shardings."""
    sound = [n for n, v in values.items() if v is not None and not v.dtype.hasobject]
    some = rng.sample(list(values), min(2, len(values)))
    for names in ([sound] if sound else []) + [[name] for name in some]:
        mesh = jax.make_mesh((rng.choice((1, 2, 2, 8)),), ("x",))
        fitting = rng.random() < 0.8
        shardings = {
            name: NamedSharding(mesh, spec)
            for name in names
            for spec in [rng.choice(_SPECS)]
            if not fitting or _fits(values[name], spec, mesh.size)
        }
        try:
            with np.errstate(all="ignore"):
                found = load(prefix, shardings, names=names, lossy=True)
        except CheckpointError as error:
            _named(error, prefix, *names)
            counts["load refused"] += 1
            continue
        counts["load"] += 1
        assert list(found) == names
        for name in names:
            value = values[name]
            if value is None and not found[name].size:  # no bytes to be found missing
                continue
            assert value is not None, f"load read {name!r}, read did not"
            with np.errstate(all="ignore"):
                assert _same(np.asarray(found[name]), value.astype(found[name].dtype)), name
            if name in shardings:
                assert found[name].sharding == shardings[name]


def _fits(value: np.ndarray | None, spec: P, devices: int) -> bool:
    if value is None or len(spec) > value.ndim:
        return False
    return all(axis is None or value.shape[d] % devices == 0 for d, axis in enumerate(spec))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _too_long(*_: Any) -> None:
    raise TooLong


def main() -> int:
    """Runs the cases that the command line asks for; returns how the process ends."""
    parser = argparse.ArgumentParser(description="Fuzzes the reader of TensorFlow's checkpoints.")
    parser.add_argument("--count", type=int, default=10_000, help="cases; default: 10,000")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; default: 0")
    parser.add_argument("--kind", choices=forge.KINDS, help="default: all in turn")
    options = parser.parse_args()
    kinds = [options.kind] if options.kind else list(forge.KINDS)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = Path(tempfile.mkdtemp(prefix="fuzz", dir=memory))
    sample = forge.make_sample(folder)
    load(sample.prefix, lossy=True)  # what is made once: the devices, their threads and buffers
    for kind in kinds:
        run_case(sample, folder, kind, -1)
    limit = _address_space() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _too_long)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    slowest, bad = (0.0, ""), 0
    for i in range(options.count):
        kind, seed = kinds[i % len(kinds)], options.seed + i // len(kinds)
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            outcomes[kind] += run_case(sample, folder, kind, seed)
        except KeyboardInterrupt:
            raise
        except BaseException:
            bad += 1
            print(f"--kind {kind} --seed {seed}\n{traceback.format_exc()}", flush=True)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        outcomes[kind]["cases"] += 1
        slowest = max(slowest, (time.monotonic() - began, f"--kind {kind} --seed {seed}"))
        if i % 5000 == 4999:
            print(f"{i + 1:,} cases, {bad} bad, {time.monotonic() - start:.0f} s", flush=True)
    shutil.rmtree(folder)
    for kind, counts in outcomes.items():
        print(f"{kind:8}", "  ".join(f"{name} {n:,}" for name, n in sorted(counts.items())))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{options.count:,} cases in {time.monotonic() - start:.0f} s, {bad} bad;", end=" ")
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}); memory grew by {grown >> 10} MiB")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
