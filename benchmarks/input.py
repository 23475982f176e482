"""Reading batches of tf.Examples from TFRecord files: monolith_jax.input against tf.data.

A record is a click: a label, 13 floats, 26 ids, 5 lists of 0 to 5 ids, about 750 bytes. Both sides
read the same files from the page cache, check the checksums, and give batches of 4,096 examples.

- one core: the process is pinned to one core, neither side has parallelism to spend.
- all cores: tf.data with AUTOTUNE everywhere, ours with a thread per core decoding ahead.
- shuffled: the same, shuffled in windows (ours) or a buffer (tf.data) of four files.

tf.data goes through the files again and again (`.repeat()`): a fresh AUTOTUNE iterator per epoch
would make it look half as fast. What it has prepared while ours was timed is drained before it is
timed itself. Ours begins with an empty cache, every time, and decodes every file.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _harness
from monolith_jax.input import Column, DataFile, Dataset, prefetch
from monolith_jax.input.write import encode_example, write_tfrecord

BATCH = 4096
DRAIN = 64  # more batches than AUTOTUNE keeps ready
IDS, FLOATS, LISTS = 26, 13, 5

SCHEMA = (
    Column("label", "int64"),
    *(Column(f"d{i}", "float32") for i in range(FLOATS)),
    *(Column(f"i{i}", "int64") for i in range(IDS)),
    *(Column(f"l{i}", "int64", None, ()) for i in range(LISTS)),
)


def write_files(root: Path, files: int, records: int) -> tuple[DataFile, ...]:
    """Writes `files` files of `records` records each; the numbers are known, as by a meta file."""
    rng, written = np.random.default_rng(0), []
    for number in range(files):
        path = root / f"part-{number:05}"
        write_tfrecord(path, (encode_example(_record(rng)) for _ in range(records)))
        written.append(DataFile(str(path), None, records))
    return tuple(written)


def _record(rng: np.random.Generator) -> dict[str, Any]:
    record: dict[str, Any] = {"label": int(rng.random() < 0.1)}
    dense, ids = rng.random(FLOATS, np.float32), rng.integers(0, 1 << 20, IDS)
    record |= {f"d{i}": float(dense[i]) for i in range(FLOATS)}
    record |= {f"i{i}": int(ids[i]) for i in range(IDS)}
    for i in range(LISTS):
        record[f"l{i}"] = rng.integers(0, 1 << 20, rng.integers(0, 6))
    return record


def ours(files: tuple[DataFile, ...], window: int, threads: int) -> Callable[[], None]:
    """One epoch from an empty cache that holds a part of the files."""
    decoded = sum(file.num_records or 0 for file in files) * 500
    cache = max(decoded // 2, 4 * window * 500)

    def run() -> None:
        data = Dataset(
            files,
            SCHEMA,
            batch_size=BATCH,
            shuffle_window=window,
            cache_bytes=cache,
            threads=threads,
        )
        if not threads:
            for k in range(data.steps_per_epoch):
                data.batch(k)
            return
        with prefetch(data.batch, 0, data.steps_per_epoch, workers=threads) as batches:
            for _ in batches:
                pass

    return run


def theirs(files: tuple[DataFile, ...], window: int, parallel: bool) -> Callable[[int], None]:
    """The next so many batches, from an iterator that goes on."""
    import tensorflow as tf

    features: dict[str, Any] = {}
    for column in SCHEMA:
        dtype = tf.int64 if column.dtype == "int64" else tf.float32
        if column.is_ragged:
            features[column.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        else:
            features[column.name] = tf.io.FixedLenFeature([], dtype)
    auto = tf.data.AUTOTUNE if parallel else None
    data = tf.data.TFRecordDataset([file.path for file in files], num_parallel_reads=auto).repeat()
    if window:
        data = data.shuffle(window)
    data = data.batch(BATCH).map(
        lambda serialized: tf.io.parse_example(serialized, features), num_parallel_calls=auto
    )
    options = tf.data.Options()
    if parallel:
        data = data.prefetch(tf.data.AUTOTUNE)
    else:
        options.threading.private_threadpool_size = 1
        options.threading.max_intra_op_parallelism = 1
        options.autotune.enabled = False
    batches: Iterator[Any] = iter(data.with_options(options))

    def run(steps: int) -> None:
        for _ in range(steps):
            next(batches)

    return run


def time_pairs(
    mine: Callable[[], None], other: Callable[[int], None], steps: int, repeats: int
) -> list[tuple[float, float]]:
    """Times both sides in turns, after a warm-up."""
    mine()
    other(steps)
    pairs = []
    for _ in range(repeats):
        start = time.perf_counter()
        mine()
        middle = time.perf_counter()
        other(DRAIN)
        drained = time.perf_counter()
        other(steps)
        pairs.append((middle - start, time.perf_counter() - drained))
    return pairs


def pin(cores: set[int]) -> None:
    """Binds every thread of this process to `cores`; new ones inherit it."""
    for task in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(task), cores)


def main() -> None:
    flags = _harness.arguments(__doc__)
    repeats = 3 if flags.quick else 15
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cores = os.sched_getaffinity(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), 16, 1024 if flags.quick else 10 * 1024)
        examples = sum(file.num_records or 0 for file in files)
        window = 4 * (files[0].num_records or 0)
        for case, some, shuffle in (
            ("batches, one core", {min(cores)}, 0),
            ("batches, all cores", cores, 0),
            ("batches shuffled, all cores", cores, window),
        ):
            one = len(some) == 1
            name = "tf.data, one thread" if one else "tf.data, AUTOTUNE"
            mine = ours(files, shuffle, 0 if one else len(cores))
            other = theirs(files, shuffle, not one)
            pin(some)
            pairs = time_pairs(mine, other, -(-examples // BATCH), repeats)
            rows.append(_harness.summarize(case, pairs, name))
            pin(cores)
    print(f"{examples} examples per run; thousand examples/s, ours and theirs:")
    for row in rows:
        print(
            f"  {row.case}: {examples / row.ours_s / 1e3:.0f}, {examples / row.theirs_s / 1e3:.0f}"
        )
    _harness.report(rows, flags.json)


if __name__ == "__main__":
    main()
