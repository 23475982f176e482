"""What makes data files a checkpoint: the index, over the parts of one writer or of several.

An index must never stand over data that is not its own, whenever the process dies. So the old
index goes before the first new data file comes, the new one comes after the last, and files that
no index names any more go after that.
"""

import os
import re
from collections.abc import Mapping

from monolith_jax import storage
from monolith_jax.checkpoint.tf._errors import blame
from monolith_jax.checkpoint.tf._index import index_path, text
from monolith_jax.checkpoint.tf._output import remove
from monolith_jax.checkpoint.tf._protos import Entry, decode_entry, encode_entry, encode_header
from monolith_jax.checkpoint.tf._table import read_table
from monolith_jax.checkpoint.tf._table_write import write_table
from monolith_jax.checkpoint.tf._wire import Malformed

_COUNT = re.compile(r"-\d{5,}-of-(\d{5,})")


def part_path(prefix: str, shard: int, shards: int) -> str:
    """Returns where the writer of a data file leaves its part of the index.

    Example:
      >>> part_path("model.ckpt-3", 0, 2)
      'model.ckpt-3.part-00000-of-00002'
    """
    return f"{prefix}.part-{shard:05d}-of-{shards:05d}"


def publish_part(prefix: str, shard: int, shards: int, entries: Mapping[bytes, Entry]) -> None:
    """Writes a writer's part of the index, which says that its data file is complete."""
    _publish(part_path(prefix, shard, shards), _table(1, entries))


def publish_index(prefix: str, shards: int, entries: Mapping[bytes, Entry]) -> None:
    """Writes the index, and then deletes what an older checkpoint of that prefix left."""
    _publish(index_path(prefix), _table(shards, entries))
    for kind in (".data", ".part"):
        for info in storage.list_prefix(f"{prefix}{kind}-"):
            count = _COUNT.fullmatch(info.path.rpartition(kind)[2])
            if count and (kind == ".part" or int(count[1]) != shards):
                remove(info.path)


def merge_bundle(prefix: storage.Path, shards: int) -> None:
    """Makes the finished data files of `shards` writers one checkpoint.

    Data files that a checkpoint of another number of them left under the prefix are deleted.

    Raises:
      CheckpointError: one has not finished, or two wrote the same tensor.
    """
    base = os.fspath(prefix)
    merged: dict[bytes, Entry] = {}
    for shard in range(shards):
        path = part_path(base, shard, shards)
        with blame(path):
            for key, value in read_table(storage.read_bytes(path))[1:]:
                _merge(merged, key, decode_entry(value, {})._replace(shard=shard))
    with blame(base):
        publish_index(base, shards, merged)


def _merge(merged: dict[bytes, Entry], key: bytes, entry: Entry) -> None:
    before = merged.get(key)
    if before is None:
        merged[key] = entry._replace(shard=0) if entry.slices else entry
        return
    if not (before.slices and entry.slices):
        raise Malformed(f"tensor {text(key)!r} was written twice")
    if (before.dtype, before.shape) != (entry.dtype, entry.shape):
        raise Malformed(f"the parts of tensor {text(key)!r} disagree about its dtype or shape")
    merged[key] = before._replace(slices=before.slices + entry.slices)


def _table(shards: int, entries: Mapping[bytes, Entry]) -> bytes:
    pairs = [(key, encode_entry(entries[key])) for key in sorted(entries)]
    return write_table([(b"", encode_header(shards)), *pairs])


def _publish(path: str, data: bytes) -> None:
    storage.write_bytes(path, data)
