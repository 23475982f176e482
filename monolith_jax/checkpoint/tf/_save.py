"""From a tree of arrays to a checkpoint; in a run of several processes each writes its own part."""

import os
from typing import Any

import jax
import numpy as np

from monolith_jax import storage
from monolith_jax.checkpoint.tf._leaves import named, own_parts
from monolith_jax.checkpoint.tf._merge import merge_bundle
from monolith_jax.checkpoint.tf._writer import BundleWriter, write_bundle


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
    leaves = named(tree, base)
    if jax.process_count() == 1:
        return write_bundle(base, leaves)
    from jax.experimental import multihost_utils

    shards = jax.process_count()
    with BundleWriter(base, shard=jax.process_index(), shards=shards) as writer:
        for name in sorted(leaves, key=str.encode):
            _add(writer, name, leaves[name])
    multihost_utils.sync_global_devices(f"monolith_jax: written {base}")
    if jax.process_index() == 0:
        merge_bundle(base, shards)
    multihost_utils.sync_global_devices(f"monolith_jax: merged {base}")


def _add(writer: BundleWriter, name: str, value: Any) -> None:
    """Adds what this process has to write of one leaf."""
    for box, part in own_parts(value):
        if box is None:
            writer.add(name, np.asarray(part))
        else:
            # spelled out: a bare `:` would be stored otherwise than a Saver stores it
            index = tuple(slice(start, stop, 1) for start, stop in box)
            writer.add_slice(name, value.shape, index, np.asarray(part))
