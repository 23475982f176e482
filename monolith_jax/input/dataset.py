"""Batches: batch k is a function of the files, the seed and k."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input._order import Order
from monolith_jax.input._store import Store
from monolith_jax.input.files import DataFile
from monolith_jax.input.schema import Batch, Columns, Schema, concat_rows, num_rows, take_rows
from monolith_jax.input.tfrecord import count_records, read_columns


class Dataset:
    """The examples of some files, in an order fixed by the seed, cut into batches.

    Epoch e is a pass over all N examples: windows of `shuffle_window` consecutive examples, in the
    order of the files, each permuted by a permutation drawn from (seed, e, window). Batch k holds
    the places `(k mod S) * B` up to `(k mod S + 1) * B` of epoch `k // S`, with batch size B and
    `S = ceil(N / B)` steps per epoch. So batch k depends on nothing but the files, the seed and k;
    no state is kept but a cache, and any k costs the same to start from.

    A batch decodes the files that its windows lie in, each as a whole, unless they are in the
    cache. Safe to call from several threads.

    Attributes:
      files: with their numbers of records filled in.
      schema: the columns.
      batch_size: B, examples per batch; `seed`, `shuffle_window`, `skip_damaged`, `check_crc`,
        `cache_bytes` and `threads`, too, are as given.
      num_examples: N, the examples of one epoch.
      steps_per_epoch: S.
      damaged: the damaged records left out, per epoch; 0 without `skip_damaged`.

    Example:
      >>> import pathlib, tempfile
      >>> from monolith_jax.input import Column
      >>> root = pathlib.Path(tempfile.mkdtemp())
      >>> record = bytes.fromhex(
      ...     "0f00000000000000 6d532b09 0a0d0a0b0a02696412051a030a012a e7fb1693"
      ... )  # {"id": int64_list [42]}
      >>> _ = (root / "part-0").write_bytes(3 * record)
      >>> data = Dataset([str(root / "part-0")], (Column("id", "int64"),), batch_size=2)
      >>> data.num_examples, data.steps_per_epoch
      (3, 2)
      >>> data.batch(1).columns["id"].tolist(), data.batch(1).weights.tolist()
      ([42, 42], [1.0, 0.0])
    """

    def __init__(
        self,
        files: Iterable[DataFile | str | os.PathLike[str]],
        schema: Schema,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle_window: int = 0,
        skip_damaged: bool = False,
        check_crc: bool = True,
        cache_bytes: int = 1 << 30,
        threads: int = 1,
    ) -> None:
        """Counts the records of the files that do not know their number, reading them once.

        Args:
          files: in the order of time, as `find_files` gives them; or paths.
          schema: the columns to read.
          batch_size: B, 1 or more.
          seed: of the permutations, 0 or more.
          shuffle_window: examples per window, in examples; 0 keeps the order of the files, N or
            more is a full shuffle.
          skip_damaged: leave damaged records out, as `read_columns` does. All files are then read
            here, checksums included, because only that tells how many good records there are.
          check_crc: compare the checksums.
          cache_bytes: how much of the decoded files is kept, and as much again of the windows of a
            shuffle. What one batch needs is kept in any case: memory is never below one window
            (twice that while it is gathered), or the files of one batch.
          threads: how many files are decoded ahead in the background, each by a thread of its own;
            0 decodes on demand in the calling thread.

        Raises:
          ConfigError: a setting that is out of its range.
          DataError: no files, no records, or files that cannot be read.
        """
        _check_settings(batch_size, seed, shuffle_window, cache_bytes, threads)
        self.schema, self.batch_size, self.seed = tuple(schema), batch_size, seed
        self.shuffle_window, self.skip_damaged = shuffle_window, skip_damaged
        self.check_crc, self.cache_bytes, self.threads = check_crc, cache_bytes, threads
        given = [f if isinstance(f, DataFile) else DataFile(os.fspath(f)) for f in files]
        if not given:
            raise DataError("no files to read")
        if not self.schema:
            raise ConfigError("a schema without columns: there is nothing to read")
        self.files, self.damaged = self._counted(given)
        self._ends = np.cumsum([file.num_records for file in self.files])
        self.num_examples = int(self._ends[-1])
        if self.num_examples == 0:
            raise DataError(f"{given[0].path}: no records in it or the {len(given) - 1} others")
        self.steps_per_epoch = -(-self.num_examples // batch_size)
        self._order = Order(self.num_examples, seed, max(shuffle_window, 1))
        self._store = Store(self._decode, len(self.files), cache_bytes, threads)
        # A window is gathered from its files once, then each batch takes its rows at random.
        gathered = Store(self._gather, self._order.num_windows, cache_bytes)
        self._windows = gathered if self._order.window > 1 else None

    def batch(self, k: int) -> Batch:
        """Returns the batch of step k, counted through all epochs.

        Args:
          k: 0 or more; step k belongs to epoch `k // steps_per_epoch`.

        Returns:
          `batch_size` rows in every column. Columns may be views of what the cache holds: they are
          read-only.

        Raises:
          IndexError: a negative k.
          DataError: a file that cannot be read, is damaged, does not fit the schema, or has another
            number of records than its meta file says.
        """
        if k < 0:
            raise IndexError(f"batch {k}: steps begin at 0")
        epoch, step = divmod(k, self.steps_per_epoch)
        start = step * self.batch_size
        stop = min(start + self.batch_size, self.num_examples)
        columns = self._rows(epoch, start, stop)
        weights = np.ones(self.batch_size, np.float32)
        if stop - start < self.batch_size:
            weights[stop - start :] = 0
            columns = take_rows(columns, np.minimum(np.arange(self.batch_size), stop - start - 1))
        return Batch(columns, weights)

    def fingerprint(self) -> str:
        """Returns a hash, 64 hex digits, of all that the batches depend on.

        That is: each file's path from its day's folder on and its number of records, the schema,
        batch size, seed, shuffle window and `skip_damaged`; not the root, nor how it is read.
        """
        document = {
            "version": 1,
            "files": [[file.name, file.num_records] for file in self.files],
            "schema": [dataclasses.asdict(column) for column in self.schema],
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle_window": min(self.shuffle_window, self.num_examples),
            "skip_damaged": self.skip_damaged,
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def _counted(self, files: list[DataFile]) -> tuple[tuple[DataFile, ...], int]:
        """Returns the files with their numbers of good records, and how many damaged ones."""
        with ThreadPoolExecutor(max(self.threads, 1)) as pool:
            counts = list(pool.map(self._count, files))
        good = (
            dataclasses.replace(file, num_records=count)
            for file, (count, _) in zip(files, counts, strict=True)
        )
        return tuple(good), sum(damaged for _, damaged in counts)

    def _count(self, file: DataFile) -> tuple[int, int]:
        """The number of good and of damaged records of a file."""
        if self.skip_damaged:
            columns, damaged = self._read(file)
            if not damaged:
                _check_count(file, num_rows(columns))
            return num_rows(columns), damaged
        if file.num_records is not None:
            return file.num_records, 0
        return count_records(file.path), 0

    def _read(self, file: DataFile) -> tuple[Columns, int]:
        return read_columns(
            file.path,
            self.schema,
            skip_damaged=self.skip_damaged,
            check_crc=self.check_crc,
            num_records=file.num_records,
        )

    def _decode(self, index: int) -> Columns:
        file = self.files[index]
        columns, _ = self._read(file)
        _check_count(file, num_rows(columns))
        return columns

    def _rows(self, epoch: int, start: int, stop: int) -> Columns:
        """Returns the examples at the places start..stop of an epoch."""
        if self._windows is None:
            return self._slice(start, stop)
        places = self._order.places(epoch, start, stop)
        windows = self._windows.get([w for w, _ in places])
        return concat_rows(
            [take_rows(window, rows) for window, (_, rows) in zip(windows, places, strict=True)]
        )

    def _gather(self, w: int) -> Columns:
        """Returns the examples of a window in the order of the files."""
        window = self._slice(*self._order.span(w))
        self._store.trim()
        return window

    def _slice(self, start: int, stop: int) -> Columns:
        """Returns the examples start..stop, counted through all files, as views if of one file."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._ends, stop - 1, side="right"))
        parts = []
        for file, columns in zip(
            range(first, last + 1), self._store.get(range(first, last + 1)), strict=True
        ):
            base = self._first(file)
            if num_rows(columns):
                parts.append(take_rows(columns, slice(max(start - base, 0), stop - base)))
        return concat_rows(parts)

    def _first(self, file: int) -> int:
        """The number of examples before a file."""
        return int(self._ends[file - 1]) if file else 0


def _check_count(file: DataFile, found: int) -> None:
    if file.num_records not in (None, found):
        raise DataError(
            f"{file.path} has {found} records, {file.num_records} are expected (by the meta file, "
            "or by an earlier count)"
        )


def _check_settings(
    batch_size: int, seed: int, shuffle_window: int, cache_bytes: int, threads: int
) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    for name, value in (
        ("seed", seed),
        ("shuffle_window", shuffle_window),
        ("cache_bytes", cache_bytes),
        ("threads", threads),
    ):
        if value < 0:
            raise ConfigError(f"{name} must not be negative, got {value}")
