"""One shard of a dump: which tables it holds, and their entries."""

import contextlib
from collections.abc import Collection, Iterator

from monolith_jax import storage
from monolith_jax.checkpoint.monolith_assets._blocks import PlainBlocks, SnappyBlocks
from monolith_jax.checkpoint.monolith_assets._entry import parse_meta
from monolith_jax.checkpoint.monolith_assets._errors import blame
from monolith_jax.checkpoint.monolith_assets._files import Dump
from monolith_jax.checkpoint.monolith_assets._rows import Batch, TableReader
from monolith_jax.checkpoint.monolith_assets._stream import Stream
from monolith_jax.checkpoint.tf._wire import Malformed
from monolith_jax.errors import CheckpointError


def contents(dump: Dump, shard: int) -> dict[str, int | None]:
    """Returns the tables of a shard in order, with their entries, None if the file must tell.

    Raises:
      CheckpointError: a multi table's list is damaged; names file and byte.
    """
    if dump.kind == "single":
        return {dump.base: None}
    path = dump.metas[shard]
    found: dict[str, int | None] = {}
    with _stream(path, snappy=False) as stream, blame(path, "", stream.where):
        while not stream.ended():
            start = stream.pos
            try:
                name, entries = parse_meta(stream.take())
                if name in found:
                    raise Malformed(f"the table {name!r} for the second time")
            except Malformed:
                stream.pos = start
                raise
            found[name] = entries
    return found


def batches(
    dump: Dump, shard: int, wanted: Collection[str], compiled: bool = True
) -> Iterator[tuple[str, Batch]]:
    """Yields (table, batch) of the tables that are wanted, in the file's order.

    The rest of the file is read as well once it was gone through to the end: what lies behind the
    last table is an error.

    Raises:
      CheckpointError: names the file, the table and the byte.
    """
    for name, reader in _tables(dump, shard, wanted, compiled):
        with blame(dump.files[shard], name, reader.where):
            for batch in reader.batches():
                yield name, batch


def count(dump: Dump, shard: int) -> int:
    """Returns the entries of a single table's shard; their checksums are compared."""
    with _stream(dump.files[shard], snappy=False) as stream:
        reader = TableReader(stream, None)
        with blame(dump.files[shard], dump.base, reader.where):
            reader.skip()
    return reader.read


def _tables(
    dump: Dump, shard: int, wanted: Collection[str], compiled: bool
) -> Iterator[tuple[str, TableReader]]:
    """Yields the reader of each wanted table, the stream at its first entry."""
    path = dump.files[shard]
    tables = contents(dump, shard)
    left = set(wanted) & tables.keys()
    if not left:
        return
    everything = left == tables.keys()
    with _stream(path, snappy=dump.kind == "multi", compiled=compiled) as stream:
        for name, entries in tables.items():
            reader = TableReader(stream, entries, compiled)
            if name not in left:
                with blame(path, name, reader.where):
                    reader.skip()
                continue
            yield name, reader
            left.discard(name)
            if not left and not everything:
                return
        with blame(path, "", stream.where):
            if not stream.ended():
                raise Malformed("bytes after the last table's last entry")


@contextlib.contextmanager
def _stream(path: str, snappy: bool, compiled: bool = True) -> Iterator[Stream]:
    with blame(path):
        size = storage.size(path)
        file = storage.open_read(path)
    with file:
        yield Stream(SnappyBlocks(file, size, compiled) if snappy else PlainBlocks(file, size))


def check_layout(seen: dict[str, tuple[str, Batch]], file: str, name: str, batch: Batch) -> None:
    """Compares a batch's layout with that of the table's first batch, in any file.

    Raises:
      CheckpointError: they differ; names both files.
    """
    other, first = seen.setdefault(name, (file, batch))
    if first.layout != batch.layout:
        raise CheckpointError(
            f"{file}: table {name!r} has entries with {batch.layout}, those in {other} have "
            f"{first.layout}"
        )
