"""The leaves of a tree: what each is called, and which parts of it this process writes."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from monolith_jax.checkpoint.tf._boxes import Box
from monolith_jax.errors import CheckpointError


def named(tree: Any, where: str) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths, joined by "/", in the tree's order.

    Args:
      tree: any pytree.
      where: what it is of, for the message.

    Raises:
      CheckpointError: two have the same.

    Example:
      >>> named({"state": {"step": 3}, "rows": [1, 2]}, "a run")
      {'rows/0': 1, 'rows/1': 2, 'state/step': 3}
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in leaves:
            raise CheckpointError(f"{where}: two leaves have the name {name!r}")
        leaves[name] = leaf
    return leaves


def own_parts(leaf: Any) -> Iterator[tuple[Box | None, Any]]:
    """Yields the parts of a leaf that this process writes, and where they lie in it.

    Of each part the process with its first replica writes it; of what is the same everywhere,
    process 0, as a whole: then there is None for the place.
    """
    if not isinstance(leaf, jax.Array) or leaf.is_fully_replicated:
        if jax.process_index() == 0:
            yield None, leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
        return
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            spans = zip(shard.index, np.shape(leaf), strict=True)
            yield tuple(part.indices(size)[:2] for part, size in spans), shard.data
