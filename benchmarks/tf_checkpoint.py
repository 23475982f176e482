"""TensorFlow's checkpoints: monolith_jax against TensorFlow itself, checksums on.

    python -m benchmarks.tf_checkpoint [--json FILE] [--quick]

Both sides read and write the same 2 GiB (64 MiB with --quick) from the page cache, in turns, and do
the same work: every byte is checksummed, and every array is a private copy in memory of its own
that stays when the file goes (no view of a mapped file). TF has no sharded load: its row reads each
tensor and `jax.device_put`s it to its sharding. Writing counts with fsync on both sides. Tiny
tensors are read one by one, as TF's reader does it, and at once. The first-tensor row is a process
of its own, imports included. The floor is the least that a copy takes here: two threads that read
the file into new memory by preadv and checksum it, and nothing else. The last line is the peak of
anonymous memory of a sharded load beyond the arrays, in a process of its own.

Targets: sharded 8x, first tensor 20x, dense 2.5x, write 1.5x, tiny 1x, memory below 300 MB.
"""

import os
import shutil
import subprocess
import sys
import tempfile
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
TINY = 20_000
FLOOR = 16 << 20  # bytes that one thread takes at a time


def main() -> None:
    args = _harness.arguments(__doc__)
    import tensorflow

    folder = Path(tempfile.mkdtemp(prefix="tf_checkpoint-", dir="."))
    try:
        rows = _rows(tensorflow, folder, args.quick)
        _harness.report(rows, args.json)
        print(f"peak anonymous memory beyond the arrays: {_peak(folder / 'dense'):.0f} MB")
    finally:
        shutil.rmtree(folder)


def _rows(tf: Any, folder: Path, quick: bool) -> list[_harness.Row]:
    repeats = 3 if quick else 5
    width = (2 << 20 if quick else 64 << 20) // 256 // 4
    rng = np.random.default_rng(0)
    dense = {f"w{i:02}": rng.random((256, width), np.float32) for i in range(TENSORS)}
    tiny = {f"layer_{i}/kernel": np.full(4, i, np.float32) for i in range(TINY)}
    bundles.write_bundle(folder / "dense", dense)
    bundles.write_bundle(folder / "tiny", tiny)
    mesh = jax.make_mesh((8,), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    work = Work(tf, folder, dense, sharding)
    rows = []
    for case, ours, theirs in (
        ("into 8 shards", work.load_ours, work.load_theirs),
        ("dense, copies", work.read_ours, work.read_theirs),
        ("write, fsync", work.write_ours, work.write_theirs),
        ("20,000 tiny, one by one", work.tiny_ours, work.tiny_theirs),
        ("20,000 tiny, at once", work.tiny_many, work.tiny_theirs),
        ("floor of a dense read", work.floor, work.read_theirs),
        ("first tensor", work.first_ours, work.first_theirs),
    ):
        rows.append(
            _harness.compare(
                case, ours, theirs, theirs_name="tensorflow", repeats=repeats, warmup=1
            )
        )
    return rows


class Work:
    """Each side of each case."""

    def __init__(self, tf: Any, folder: Path, dense: dict[str, np.ndarray], sharding: Any) -> None:
        self._tf, self._folder, self._dense, self._sharding = tf, folder, dense, sharding
        self._prefix = str(folder / "dense")

    def load_ours(self) -> None:
        """Into eight shards, by monolith_jax."""
        shardings = dict.fromkeys(self._dense, self._sharding)
        jax.block_until_ready(bundles.load(self._prefix, shardings))

    def load_theirs(self) -> None:
        """Into eight shards, by TensorFlow."""
        reader = self._tf.train.load_checkpoint(self._prefix)
        arrays = [jax.device_put(reader.get_tensor(name), self._sharding) for name in self._dense]
        jax.block_until_ready(arrays)

    def read_ours(self) -> None:
        """Into arrays of their own, by monolith_jax."""
        with bundles.open_bundle(self._prefix) as bundle:
            bundle.read_many()

    def read_theirs(self) -> None:
        """Into arrays of their own, by TensorFlow."""
        reader = self._tf.train.load_checkpoint(self._prefix)
        {name: reader.get_tensor(name) for name in self._dense}

    def floor(self) -> None:
        """The bytes into new memory, checksummed, on two threads: no index, no arrays."""
        with open(f"{self._prefix}.data-00000-of-00001", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            buffers = [np.empty(min(FLOOR, size - at), np.uint8) for at in range(0, size, FLOOR)]

            def read(i: int) -> int:
                crc = 0
                for at in range(0, len(buffers[i]), 1 << 20):
                    piece = memoryview(buffers[i].data)[at : at + (1 << 20)]
                    os.preadv(file.fileno(), [piece], i * FLOOR + at)
                    crc = crc32c(piece, crc)
                return crc

            with ThreadPoolExecutor(2) as pool:
                list(pool.map(read, range(len(buffers))))

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
        with bundles.open_bundle(self._folder / "tiny") as bundle:
            for i in range(TINY):
                bundle.read(f"layer_{i}/kernel")

    def tiny_many(self) -> None:
        """Many small tensors in one call, by monolith_jax."""
        with bundles.open_bundle(self._folder / "tiny") as bundle:
            bundle.read_many()

    def tiny_theirs(self) -> None:
        """Many small tensors, by TensorFlow."""
        reader = self._tf.train.load_checkpoint(str(self._folder / "tiny"))
        for i in range(TINY):
            reader.get_tensor(f"layer_{i}/kernel")

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
