"""Reading batches of tf.Examples from TFRecord files: monolith_jax.input against tf.data.

A record is a click: a label, 13 floats, 26 ids, 5 lists of 0 to 5 ids, about 750 bytes. Both sides
read the same files from the page cache, check the checksums, and give batches of 4,096 examples.

- one core: the process is pinned to one core, neither side has parallelism to spend.
- all cores: a thread per core on both sides, both give full batches in the order of the records.
- all cores, files apart: the same, but tf.data reads a file per thread, cuts batches at the ends of
  files and gives them as they come; we keep the order. The fastest tf.data that we have found.
- shuffled: the same, shuffled in windows (ours) or a buffer (tf.data) of four files.

Both sides go on through the files without end: a fresh iterator per epoch would make tf.data look
half as fast. Each side is timed when the threads of the other have come to rest, and
after what it had prepared is drained. Our cache is too small to serve a file twice.
"""

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _harness
from monolith_jax.input import Column, DataFile, Dataset, Prefetch, prefetch
from monolith_jax.input.write import encode_example, write_tfrecord

BATCH = 4096
DRAIN = 32  # more batches than either side keeps ready
DECODED = 440  # bytes per example, in columns
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


def ours(files: tuple[DataFile, ...], window: int, threads: int) -> Iterator[Any]:
    """Batches without end; the cache holds half of the files, so each is decoded in every epoch."""
    examples = sum(file.num_records or 0 for file in files)
    data = Dataset(
        files,
        SCHEMA,
        batch_size=BATCH,
        shuffle_window=window,
        cache_bytes=examples * DECODED // 2,
        threads=threads,
    )
    if threads:
        return prefetch(data.batch, 0, 1 << 60)
    return ((k, data.batch(k)) for k in itertools.count())


def theirs(files: tuple[DataFile, ...], window: int, threads: int, apart: bool) -> Iterator[Any]:
    """Batches without end, by the fastest pipeline of each kind that we have found.

    Reading several files at once record by record (`num_parallel_reads`) is many times slower than
    a pipeline per file, interleaved by whole batches, which a shuffle of records does not allow.
    Parallelism and buffers are fixed to what the machine has: AUTOTUNE is no faster, and grows its
    buffers until a whole epoch lies ready.
    """
    import tensorflow as tf

    features: dict[str, Any] = {}
    for column in SCHEMA:
        dtype = tf.int64 if column.dtype == "int64" else tf.float32
        if column.is_ragged:
            features[column.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        else:
            features[column.name] = tf.io.FixedLenFeature([], dtype)

    def parse(serialized: Any) -> Any:
        return tf.io.parse_example(serialized, features)

    def one_file(path: Any) -> Any:
        return tf.data.TFRecordDataset(path).batch(BATCH).map(parse)

    paths = [file.path for file in files]
    options = tf.data.Options()
    options.autotune.enabled = False
    if not threads:
        data = tf.data.TFRecordDataset(paths).repeat().batch(BATCH).map(parse)
        options.threading.private_threadpool_size = 1
        options.threading.max_intra_op_parallelism = 1
    elif window:
        data = tf.data.TFRecordDataset(paths).repeat().shuffle(window).batch(BATCH)
        data = data.map(parse, num_parallel_calls=threads).prefetch(threads)
    elif not apart:
        data = tf.data.TFRecordDataset(paths).repeat().batch(BATCH)
        data = data.map(parse, num_parallel_calls=threads).prefetch(threads)
    else:
        data = tf.data.Dataset.from_tensor_slices(paths).repeat()
        data = data.interleave(
            one_file, cycle_length=threads, num_parallel_calls=threads, deterministic=False
        )
        data = data.prefetch(threads)
    return iter(data.with_options(options))


def seconds(batches: Iterator[Any], examples: int) -> float:
    """Times the next batches, when the other side rests, after draining what was prepared."""
    _settle()
    _take(batches, DRAIN * BATCH)
    start = time.perf_counter()
    taken = _take(batches, examples)
    return (time.perf_counter() - start) * examples / taken


def _settle() -> None:
    """Waits until the background threads of this process, of either side, have nothing to do."""
    for _ in range(100):
        before = time.process_time()
        time.sleep(0.05)
        if time.process_time() - before < 0.002:
            return


def _take(batches: Iterator[Any], examples: int) -> int:
    taken = 0
    while taken < examples:
        batch = next(batches)
        taken += len(batch[1].weights) if isinstance(batch, tuple) else len(batch["label"])
    return taken


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
        files = write_files(Path(folder), 16, 2048 if flags.quick else 10 * 1024)
        examples = sum(file.num_records or 0 for file in files)
        window = 4 * (files[0].num_records or 0)
        for case, some, shuffle, apart in (
            ("batches, one core", {min(cores)}, 0, False),
            ("batches, all cores", cores, 0, False),
            ("batches, all cores, files apart", cores, 0, True),
            ("batches shuffled, all cores", cores, window, False),
        ):
            one = len(some) == 1
            threads = 0 if one else len(cores)
            name = f"tf.data, {threads or 1} thread{'s' if threads else ''}"
            mine = ours(files, shuffle, threads)
            other = theirs(files, shuffle, threads, apart)
            pin(some)
            seconds(mine, examples), seconds(other, examples)
            pairs = [(seconds(mine, examples), seconds(other, examples)) for _ in range(repeats)]
            rows.append(_harness.summarize(case, pairs, name))
            pin(cores)
            if isinstance(mine, Prefetch):
                mine.close()
    print(f"{examples} examples per run; thousand examples/s, ours and theirs:")
    for row in rows:
        print(
            f"  {row.case}: {examples / row.ours_s / 1e3:.0f}, {examples / row.theirs_s / 1e3:.0f}"
        )
    _harness.report(rows, flags.json)


if __name__ == "__main__":
    main()
