"""The tables in a folder of assets."""

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from monolith_jax import storage
from monolith_jax._machine import usable_cores
from monolith_jax.checkpoint.monolith_assets import _shards
from monolith_jax.checkpoint.monolith_assets._files import Dump, assets_folder, find_dumps
from monolith_jax.checkpoint.monolith_assets._report import Report, TableReport
from monolith_jax.checkpoint.monolith_assets._rows import Batch
from monolith_jax.checkpoint.monolith_assets._tables import TableDump, describe, to_table
from monolith_jax.errors import CheckpointError, did_you_mean

_THREADS = 8


@dataclass(frozen=True)
class Assets:
    """The embedding tables that Monolith wrote beside a checkpoint; made by `open_assets`.

    Attributes:
      folder: where they lie.
      tables: by name, the dumps that hold entries of it. The servers of one job each dump the
        tables of a multi table under the same names: they are one table here.
      hash_filters: names of the dumps of filters of rare ids; they hold no embeddings.
      ignored: paths of files that belong to no dump, such as those of an unfinished save.
    """

    folder: str
    tables: dict[str, tuple[Dump, ...]]
    hash_filters: tuple[str, ...]
    ignored: tuple[str, ...]

    def read(
        self, names: Collection[str] | None = None, *, compiled: bool = True
    ) -> dict[str, TableDump]:
        """Returns whole tables, by name; each file is gone through once, several at a time.

        Memory peaks at twice the arrays of the tables that are read. All checksums are compared.

        Args:
          names: the tables; all if None.
          compiled: with the compiled walk (numba); False reads every entry in plain Python, some
            hundred times slower and with the same result.

        Raises:
          CheckpointError: there is no such table; a file is missing, cut off or damaged, or has
            entries of another form than the table's first. Names file, table and byte.

        Example:
          See `open_assets`.
        """
        wanted = self._known(names)
        parts = self._parts(wanted)

        def read(part: tuple[Dump, int]) -> list[tuple[str, Batch]]:
            return list(_shards.batches(*part, wanted, compiled))

        with ThreadPoolExecutor(min(_THREADS, usable_cores())) as pool:
            found = list(pool.map(read, parts))
        seen: dict[str, tuple[str, Batch]] = {}
        batches: dict[str, list[Batch]] = {name: [] for name in wanted}
        for (dump, shard), shard_batches in zip(parts, found, strict=True):
            for name, batch in shard_batches:
                _shards.check_layout(seen, dump.files[shard], name, batch)
                batches[name].append(batch)
        del found, seen
        return {name: to_table(name, batches.pop(name)) for name in wanted}

    def batches(self, name: str, *, compiled: bool = True) -> Iterator[TableDump]:
        """Yields a table in parts of at most 65,536 entries and 32 MiB: memory stays bounded.

        Args:
          name: the table.
          compiled: as for `read`.

        Raises:
          CheckpointError: as for `read`, at the part that is damaged.
        """
        wanted = self._known([name])
        seen: dict[str, tuple[str, Batch]] = {}
        for dump, shard in self._parts(wanted):
            for _, batch in _shards.batches(dump, shard, wanted, compiled):
                _shards.check_layout(seen, dump.files[shard], name, batch)
                yield to_table(name, [batch])

    def report(self) -> Report:
        """Returns what there is: entries, dims, optimizers and bytes of each table.

        Reads the first entry of each shard, the lists of multi tables, and all of single tables,
        whose entries nothing else counts; for exact bytes of a table within a multi table the
        format has no answer, so the whole dumps' are given.

        Raises:
          CheckpointError: as for `read`.
        """
        rows = [self._report(name, dumps) for name, dumps in self.tables.items()]
        return Report(self.folder, tuple(rows), self.hash_filters, self.ignored)

    def _report(self, name: str, dumps: tuple[Dump, ...]) -> TableReport:
        entries, size, files = 0, 0, 0
        for dump in dumps:
            for shard, path in enumerate(dump.files):
                known = _shards.contents(dump, shard).get(name, 0)
                entries += _shards.count(dump, shard) if known is None else known
                size += storage.size(path)
                files += 1
        first = self._first(name)
        kind = "+".join(sorted({dump.kind for dump in dumps}))
        if first is None:
            return TableReport(name, kind, files, size, entries, None, "")
        layout = first.layout
        return TableReport(name, kind, files, size, entries, layout.dim, describe(layout))

    def _first(self, name: str) -> Batch | None:
        for dump, shard in self._parts([name]):
            for _, batch in _shards.batches(dump, shard, [name]):
                return batch
        return None

    def _parts(self, names: Collection[str]) -> list[tuple[Dump, int]]:
        dumps = {dump: None for name in names for dump in self.tables[name]}
        return [(dump, shard) for dump in dumps for shard in range(len(dump.files))]

    def _known(self, names: Collection[str] | None) -> list[str]:
        if isinstance(names, str):
            names = [names]
        for name in names or ():
            if name not in self.tables:
                hint = did_you_mean(name, self.tables)
                raise CheckpointError(f"{self.folder}: no table {name!r}; {hint}")
        return list(dict.fromkeys(self.tables if names is None else names))


def open_assets(path: storage.Path) -> Assets:
    """Finds the embedding tables beside one of Monolith's checkpoints.

    Single tables are files `<name>-<shard>-of-<shards>` of entries, with : and / in the name turned
    into -; multi tables hold several in a snappy stream. Only the lists of tables are read now.

    Args:
      path: local or gs://: the checkpoint's prefix (`model.ckpt-100`), its folder of assets
        (`model.ckpt-100.assets`), or the `assets` of a SavedModel.

    Raises:
      CheckpointError: there is no such folder, shards are missing, or a list is damaged.

    Source: HashTableCheckpointSaverListener and MultiHashTableCheckpointSaverListener of
    monolith/native_training, runtime/ops/hash_table_save_op.cc and
    multi_hash_table_save_restore_ops.cc.

    Example:
      >>> import tempfile
      >>> record = bytes.fromhex(  # id 5, embedding [1.0], adagrad with norm [0.5], time 7
      ...     "1b00000000000000 1a0d9e13"
      ...     "09 0500000000000000 15 0000803f 1a 09 0a07 0a05 0d 0000003f 20 07"
      ...     "df3c90a7"
      ... )
      >>> folder = tempfile.mkdtemp() + "/model.ckpt-100.assets"
      >>> storage.write_bytes(folder + "/user-00000-of-00001", record)
      >>> table = open_assets(folder.removesuffix(".assets")).read()["user"]
      >>> table.ids.tolist(), table.embeddings.tolist(), table.slices[0].slots["norm"].tolist()
      ([5], [[1.0]], [[0.5]])
    """
    folder = assets_folder(path)
    dumps, others = find_dumps(folder)
    tables: dict[str, tuple[Dump, ...]] = {}
    for dump in dumps:
        if dump.kind == "hash_filter":
            continue
        names = {name: None for n in range(len(dump.files)) for name in _shards.contents(dump, n)}
        for name in names:
            tables[name] = (*tables.get(name, ()), dump)
    filters = tuple(dump.base for dump in dumps if dump.kind == "hash_filter")
    return Assets(folder, tables, filters, tuple(others))
