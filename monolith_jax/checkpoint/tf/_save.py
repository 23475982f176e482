"""From a tree of arrays to a checkpoint; in a run of several processes each writes its own part."""

import os
from typing import Any

import jax
import numpy as np

from monolith_jax import storage
from monolith_jax.checkpoint.tf._merge import merge_bundle
from monolith_jax.checkpoint.tf._writer import BundleWriter, write_bundle
from monolith_jax.errors import CheckpointError


def save(prefix: storage.Path, tree: Any) -> None:
    """Writes the leaves of a tree under their paths, joined by "/".

    One process writes one data file, byte for byte as a `tf.train.Saver` would. Of several, each
    writes a data file with the shards that it holds the first replica of, as the parts of a
    partitioned variable; process 0 makes them one checkpoint. All processes call it alike, on a
    folder that all share, and return when it is complete.

    Args:
      prefix: local or gs://, without endings.
      tree: of jax or numpy arrays; a flat dict may have names with "/". None is left out.

    Raises:
      CheckpointError: two leaves have the same name, or it cannot be written.

    Example:
      >>> import tempfile
      >>> from monolith_jax.checkpoint.tf import open_bundle
      >>> prefix = storage.join(tempfile.mkdtemp(), "model.ckpt-1")
      >>> save(prefix, {"dense": {"kernel": np.ones((2, 2), np.float32)}, "global_step": 1})
      >>> list(open_bundle(prefix).entries)
      ['dense/kernel', 'global_step']
    """
    base = os.fspath(prefix)
    named = _named(base, tree)
    if jax.process_count() == 1:
        return write_bundle(base, named)
    from jax.experimental import multihost_utils

    shards = jax.process_count()
    with BundleWriter(base, shard=jax.process_index(), shards=shards) as writer:
        for name in sorted(named, key=str.encode):
            _add(writer, name, named[name])
    multihost_utils.sync_global_devices(f"monolith_jax: written {base}")
    if jax.process_index() == 0:
        merge_bundle(base, shards)
    multihost_utils.sync_global_devices(f"monolith_jax: merged {base}")


def _named(prefix: str, tree: Any) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise CheckpointError(f"{prefix}: two leaves have the name {name!r}")
        named[name] = leaf
    return named


def _add(writer: BundleWriter, name: str, value: Any) -> None:
    """Adds what this process has to write of one leaf."""
    if not isinstance(value, jax.Array) or value.is_fully_replicated:
        if jax.process_index() == 0:
            local = value.addressable_data(0) if isinstance(value, jax.Array) else value
            writer.add(name, np.asarray(local))
        return
    for shard in value.addressable_shards:
        if shard.replica_id == 0:
            # spelled out: a bare `:` would be stored otherwise than a Saver stores it
            index = tuple(
                slice(*part.indices(size))
                for part, size in zip(shard.index, value.shape, strict=True)
            )
            writer.add_slice(name, value.shape, index, np.asarray(shard.data))
