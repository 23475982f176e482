"""TensorFlow's checkpoints: monolith_jax against TensorFlow itself, checksums on.

    python -m benchmarks.tf_checkpoint [--json FILE] [--quick]

Both sides read and write the same 2 GiB (64 MiB with --quick) from the page cache, in turns, and
checksum every byte; every array is memory of its own that stays when the file goes (no view of a
mapped file).

A checkpoint is restored once in the life of a process, into memory that it never had before. So
each time of the large reads is the first call in a process of its own, both sides alike; imports
and jax's devices come before the clock starts. The memory itself was touched and given back right
before: on a virtual machine the first touch of what the host has taken away costs more than the
whole read, and would hit whoever comes first. "Again" is the second call in the same process, after
the first call's arrays are gone: TensorFlow's allocator keeps and reuses their memory, numpy's
gives it back. There are two ways into eight shards with TensorFlow: its reader's arrays handed to
`jax.device_put`, which on CPUs shares their memory, and its own restore of eight slices, as a
partitioned variable is restored (`RestoreV2`). The floor is the least that a copy takes here: two
threads that read the file into new memory by preadv and checksum it, and nothing else.

Tiny tensors are read one by one, as TF's reader does it, and at once into a dict. Writing counts
with fsync on both sides. The first-tensor row is a whole process, imports included. The last line
is the peak of anonymous memory of a sharded load beyond the arrays, in a process of its own.

Targets: sharded 8x, first tensor 20x, dense 2.5x, write 1.5x, tiny 1x, memory below 300 MB.
"""

import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import numpy as np
from crc32c import crc32c
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import _harness
from monolith_jax.checkpoint import tf as bundles

TENSORS = 32  # of 64 MiB each, 2 MiB with --quick
ROWS = 256  # of each
NAMES = [f"w{i:02}" for i in range(TENSORS)]
TINY = 20_000
FLOOR = 16 << 20  # bytes that one thread takes at a time
READS = (  # case, our side and theirs of `Reads`, what theirs is
    ("into 8 shards", "load", "put", "tensorflow, device_put"),
    ("into 8 shards", "load", "restore", "tensorflow, RestoreV2"),
    ("dense, copies", "read", "get", "tensorflow"),
    ("floor of a dense read", "floor", "get", "tensorflow"),
)


def main() -> None:
    args = _harness.arguments(__doc__)
    import tensorflow

    folder = Path(tempfile.mkdtemp(prefix="tf_checkpoint-", dir="."))
    try:
        width = (2 << 20 if args.quick else 64 << 20) // ROWS // 4
        rng = np.random.default_rng(0)
        dense = {name: rng.random((ROWS, width), np.float32) for name in NAMES}
        bundles.write_bundle(folder / "dense", dense)
        rows = _reads(folder / "dense", 2 if args.quick else 7)
        rows += _rest(Rest(tensorflow, folder, dense), args.quick)
        _harness.report(rows, args.json)
        print(f"peak anonymous memory beyond the arrays: {_peak(folder / 'dense'):.0f} MB")
    finally:
        shutil.rmtree(folder)


def _reads(prefix: Path, rounds: int) -> list[_harness.Row]:
    """Returns the rows of the large reads: all sides in turns, each time in a new process."""
    sides = sorted({side for _, ours, theirs, _ in READS for side in (ours, theirs)})
    code = "import sys; from benchmarks.tf_checkpoint import time_read; time_read(*sys.argv[1:])"
    times: dict[str, list[list[float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            times[side].append([float(t) for t in _python(code, str(prefix), side).split()])
    rows = []
    for call, again in enumerate(("", ", again")):
        for case, ours, theirs, name in READS:
            pairs = [(o[call], t[call]) for o, t in zip(times[ours], times[theirs], strict=True)]
            rows.append(_harness.summarize(case + again, pairs, name))
    return rows


def time_read(prefix: str, side: str) -> None:
    """Prints the seconds of the first and the second call of one side of `Reads`."""
    read: Callable[[], Any] = getattr(Reads(prefix, side), side)
    for _ in range(2):
        _touch(2 * os.path.getsize(f"{prefix}.data-00000-of-00001"))
        start = time.perf_counter()
        arrays = read()
        print(time.perf_counter() - start)
        del arrays


def _touch(size: int) -> None:
    """Has the machine's free memory at hand: takes it, touches it and gives it back."""
    free = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
    with mmap.mmap(-1, min(size, free // 2), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


class Reads:
    """Each side of each large read, in a process of its own; each returns its arrays."""

    def __init__(self, prefix: str, side: str) -> None:
        self._prefix, self._ours = prefix, (bundles.load, bundles.open_bundle)  # imported here
        mesh = jax.make_mesh((8,), ("x",))
        self._sharding = NamedSharding(mesh, PartitionSpec("x"))
        jax.block_until_ready(jax.device_put(np.ones(8), self._sharding))
        if side in ("put", "restore", "get"):
            import tensorflow

            self._tf: Any = tensorflow
            tensorflow.constant(1.0)

    def load(self) -> object:
        """Into eight shards, by monolith_jax."""
        load, _ = self._ours
        return jax.block_until_ready(load(self._prefix, dict.fromkeys(NAMES, self._sharding)))

    def put(self) -> object:
        """Into eight shards, by TensorFlow's reader and jax."""
        reader = self._tf.train.load_checkpoint(self._prefix)
        return jax.block_until_ready(
            [jax.device_put(reader.get_tensor(name), self._sharding) for name in NAMES]
        )

    def restore(self) -> object:
        """Into eight parts, by TensorFlow's restore of slices."""
        shapes = self._tf.train.load_checkpoint(self._prefix).get_variable_to_shape_map()
        rows = ROWS // 8
        parts = [
            (name, f"{ROWS} {shapes[name][1]} {start},{rows}:-")
            for name in NAMES
            for start in range(0, ROWS, rows)
        ]
        names, slices = zip(*parts, strict=True)
        types = [self._tf.float32] * len(parts)
        return self._tf.raw_ops.RestoreV2(
            prefix=self._prefix, tensor_names=names, shape_and_slices=slices, dtypes=types
        )

    def read(self) -> object:
        """Into arrays of their own, by monolith_jax."""
        _, open_bundle = self._ours
        with open_bundle(self._prefix) as bundle:
            return bundle.read_many()

    def get(self) -> object:
        """Into arrays of their own, by TensorFlow's reader."""
        reader = self._tf.train.load_checkpoint(self._prefix)
        return {name: reader.get_tensor(name) for name in NAMES}

    def floor(self) -> object:
        """The bytes into new memory, checksummed, on two threads: no index, no arrays."""
        with open(f"{self._prefix}.data-00000-of-00001", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            buffer = np.empty(size, np.uint8)

            def read(start: int) -> int:
                crc = 0
                for at in range(start, min(start + FLOOR, size), 1 << 20):
                    piece = memoryview(buffer[at : at + (1 << 20)].data)
                    os.preadv(file.fileno(), [piece], at)
                    crc = crc32c(piece, crc)
                return crc

            with ThreadPoolExecutor(2) as pool:
                list(pool.map(read, range(0, size, FLOOR)))
        return buffer


def _rest(work: "Rest", quick: bool) -> list[_harness.Row]:
    """Returns the rows of all else, in turns in this process."""
    return [
        _harness.compare(case, ours, theirs, theirs_name="tensorflow", repeats=repeats, warmup=1)
        for case, ours, theirs, repeats in (
            ("write, fsync", work.write_ours, work.write_theirs, 3 if quick else 5),
            ("20,000 tiny, one by one", work.tiny_ours, work.tiny_theirs, 15),
            ("20,000 tiny, at once", work.many_ours, work.many_theirs, 15),
            ("first tensor", work.first_ours, work.first_theirs, 3 if quick else 7),
        )
    ]


class Rest:
    """Each side of the other cases."""

    def __init__(self, tf: Any, folder: Path, dense: dict[str, np.ndarray]) -> None:
        self._tf, self._folder, self._dense = tf, folder, dense
        self._prefix, self._tiny = str(folder / "dense"), str(folder / "tiny")
        tiny = {f"layer_{i}/kernel": np.full(4, i, np.float32) for i in range(TINY)}
        bundles.write_bundle(self._tiny, tiny)
        self._names = list(tiny)

    def write_ours(self) -> None:
        """To the disk, by monolith_jax."""
        bundles.write_bundle(self._folder / "ours", self._dense)

    def write_theirs(self) -> None:
        """To the disk, by TensorFlow."""
        self._tf.raw_ops.SaveV2(
            prefix=str(self._folder / "theirs"),
            tensor_names=list(self._dense),
            shape_and_slices=[""] * len(self._dense),
            tensors=[self._tf.constant(value) for value in self._dense.values()],
        )
        for path in self._folder.glob("theirs.*"):
            with open(path, "rb") as file:
                os.fsync(file.fileno())

    def tiny_ours(self) -> None:
        """Many small tensors one by one, by monolith_jax."""
        with bundles.open_bundle(self._tiny) as bundle:
            for name in self._names:
                bundle.read(name)

    def tiny_theirs(self) -> None:
        """Many small tensors one by one, by TensorFlow."""
        reader = self._tf.train.load_checkpoint(self._tiny)
        for name in self._names:
            reader.get_tensor(name)

    def many_ours(self) -> dict[str, np.ndarray]:
        """Many small tensors into a dict, by monolith_jax."""
        with bundles.open_bundle(self._tiny) as bundle:
            return bundle.read_many()

    def many_theirs(self) -> dict[str, np.ndarray]:
        """Many small tensors into a dict, by TensorFlow."""
        reader = self._tf.train.load_checkpoint(self._tiny)
        return {name: reader.get_tensor(name) for name in self._names}

    def first_ours(self) -> None:
        """One tensor in a new process, by monolith_jax."""
        _python(
            "from monolith_jax.checkpoint.tf import open_bundle;"
            f"open_bundle({self._prefix!r}).read('w07')"
        )

    def first_theirs(self) -> None:
        """One tensor in a new process, by TensorFlow."""
        _python(
            f"import tensorflow as tf;tf.train.load_checkpoint({self._prefix!r}).get_tensor('w07')"
        )


PEAK = """
import sys, threading, time, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from monolith_jax.checkpoint.tf import load, open_bundle
def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1e3
sharding = NamedSharding(jax.make_mesh((8,), ("x",)), PartitionSpec("x"))
names = list(open_bundle(sys.argv[1]).entries)
jax.block_until_ready(jax.device_put(np.ones(8), sharding))
before, peak, stop = anonymous(), 0.0, False
def watch():
    global peak
    while not stop:
        peak = max(peak, anonymous())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
arrays = jax.block_until_ready(load(sys.argv[1], dict.fromkeys(names, sharding)))
stop = True
thread.join()
print(max(peak, anonymous()) - before - sum(a.nbytes for a in arrays.values()) / 1e6)
"""


def _peak(prefix: Path) -> float:
    """Returns the MB of anonymous memory that a sharded load takes at most beyond its arrays."""
    return float(_python(PEAK, str(prefix)))


def _python(code: str, *args: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code, *args], check=True, stdout=subprocess.PIPE, text=True
    )
    return run.stdout


if __name__ == "__main__":
    main()
