"""From a device's rows to one vector per example and feature, across devices if need be."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from monolith_jax.embedding._access import pick
from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding.config import FeatureConfig


def receive(rows: jax.Array, lookups: StackLookups, axis: str) -> jax.Array:
    """Returns the rows that this device's examples need, [owners * C, dim].

    Every owner sends each asker its rows: one all_to_all of `owners * C` rows. Transposed, it
    carries the gradients back and sums, at the owner, over the askers.

    Args:
      rows: [U, dim], the touched rows of this device's block.
      lookups: this device's part, with `send` [1, askers, C].
      axis: the mesh axis.
    """
    assert lookups.send is not None
    leaving = pick(rows, lookups.send[0], 0.0)
    return jax.lax.all_to_all(leaving, axis, 0, 0).reshape(-1, rows.shape[1])


def combine_features(
    rows: jax.Array, index: jax.Array, features: Sequence[FeatureConfig]
) -> dict[str, jax.Array]:
    """Returns each feature's [batch, dim].

    Args:
      rows: [n, dim], what this device received.
      index: int32 [batch, ids per example], into `rows`, `NONE` for no id.
      features: in the order of their ids in `index`.
    """
    lengths = [feature.max_length for feature in features]
    vectors = jax.lax.split(pick(rows, index, 0.0), lengths, axis=1)
    indices = jax.lax.split(index, lengths, axis=1)
    return {
        feature.name: _reduce(feature, vector, ids)
        for feature, vector, ids in zip(features, vectors, indices, strict=True)
    }


def _reduce(feature: FeatureConfig, vectors: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns the sum over the ids of each example, [batch, dim], scaled as the combiner says."""
    if feature.max_length == 1:
        return vectors[:, 0]
    total = vectors.sum(axis=1)
    if feature.combiner == "sum":
        return total
    count = jnp.maximum((ids != NONE).sum(axis=1, dtype=jnp.int32), 1).astype(total.dtype)
    divisor = count if feature.combiner == "mean" else jnp.sqrt(count)
    return total / divisor[:, None]
