"""From a device's rows to one vector per example and feature, across devices if need be."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from monolith_jax.embedding._access import pick
from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._parts import Part

Picker: TypeAlias = Callable[
    [jax.Array, jax.Array, Sequence[Part], Sequence[jax.Array]], Sequence[jax.Array]
]
"""From rows [n, dim], ids [batch, ids], their parts and what the derivative may wait for, to the
vectors of each part, [batch, length, dim], with zeros where there is no id."""


def picker(device: Any) -> Picker:
    """Returns what reads a batch's vectors on a device."""
    return _pick_on_cpu if device.platform == "cpu" else _pick


def _pick(
    rows: jax.Array, index: jax.Array, parts: Sequence[Part], after: Sequence[jax.Array]
) -> Sequence[jax.Array]:
    return jax.lax.split(pick(rows, index, 0.0), [part.max_length for part in parts], axis=1)


def _pick_on_cpu(
    rows: jax.Array, index: jax.Array, parts: Sequence[Part], after: Sequence[jax.Array]
) -> Sequence[jax.Array]:
    from monolith_jax.embedding._cpu import picking

    # An example's vectors side by side, as a model's first layer takes them: XLA then adds up their
    # gradients in place.
    names = sorted({part.table for part in parts})
    tables = [names.index(part.table) for part in parts for _ in range(part.max_length)]
    wide = picking.pick(rows, index, tables, after)
    dim = rows.shape[1]
    each = jax.lax.split(wide, [part.max_length * dim for part in parts], axis=1)
    return [one.reshape(-1, part.max_length, dim) for one, part in zip(each, parts, strict=True)]


def receive(rows: jax.Array, lookups: StackLookups, axis: str) -> jax.Array:
    """Returns the rows that this device's examples need, [owners * C, dim], relayed ones behind.

    Every owner sends each asker its rows: one all_to_all of `owners * C` rows; what is more than C
    comes by two more, of `owners * R` rows. Transposed, they carry the gradients back and sum, at
    the owner, over the askers.

    Args:
      rows: [U, dim], the touched rows of this device's block.
      lookups: this device's part, with `send` [1, askers, C].
      axis: the mesh axis.
    """
    assert lookups.send is not None
    direct = _exchange(rows, lookups.send, axis)
    if lookups.relay is None or lookups.forward is None:
        return direct
    passing = _exchange(rows, lookups.relay, axis)
    return jnp.concatenate([direct, _exchange(passing, lookups.forward, axis)])


def _exchange(rows: jax.Array, send: jax.Array, axis: str) -> jax.Array:
    """Returns what every device sends this one, [D * n, dim]; `send` is [1, D, n] places."""
    leaving = pick(rows, send[0], 0.0)
    return jax.lax.all_to_all(leaving, axis, 0, 0).reshape(-1, rows.shape[1])


def combine_features(
    rows: jax.Array,
    index: jax.Array,
    weights: jax.Array | None,
    parts: Sequence[Part],
    pick: Picker,
    after: Sequence[jax.Array] = (),
) -> dict[str, jax.Array]:
    """Returns each lookup's [batch, dim], or a sequence's [batch, length, dim] and its mask.

    Args:
      rows: [n, dim], what this device received.
      index: int32 [batch, ids per example], into `rows`, `NONE` for no id.
      weights: float32, as `index`; None: all are 1.
      parts: the lookups, in the order of their ids in `index`.
      pick: from `picker`.
      after: arrays that the derivative may wait for.
    """
    lengths = [part.max_length for part in parts]
    vectors = pick(rows, index, parts, after)
    indices = jax.lax.split(index, lengths, axis=1)
    each = [None] * len(parts) if weights is None else jax.lax.split(weights, lengths, axis=1)
    found: dict[str, jax.Array] = {}
    for part, vector, ids, weight in zip(parts, vectors, indices, each, strict=True):
        weight = weight if part.feature.weights else None
        if part.feature.sequence:
            found[part.feature.mask_name] = ids != NONE
            reduced = vector if weight is None else vector * weight[:, :, None]
        elif weight is not None:
            reduced = _reduce_weighted(part, vector, ids, weight)
        else:
            reduced = _reduce(part, vector, ids)
        if part.multiplier != 1.0:
            reduced = _scale_gradient(reduced, part.multiplier)
        found[part.name] = reduced
    return found


def _reduce(part: Part, vectors: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns the sum over the ids of each example, [batch, dim], scaled as the combiner says."""
    if part.max_length == 1:
        return vectors[:, 0]
    total = vectors.sum(axis=1)
    if part.feature.combiner == "sum":
        return total
    count = jnp.maximum((ids != NONE).sum(axis=1, dtype=jnp.int32), 1).astype(total.dtype)
    divisor = count if part.feature.combiner == "mean" else jnp.sqrt(count)
    return total / divisor[:, None]


def _reduce_weighted(
    part: Part, vectors: jax.Array, ids: jax.Array, weights: jax.Array
) -> jax.Array:
    """Returns the weighted sum over the ids of each example, scaled as the combiner says.

    An id of weight 0 is `NONE` already: where there is an id, no divisor is 0.
    """
    weights = jnp.where(ids != NONE, weights, 0.0)
    total = (vectors * weights[:, :, None]).sum(axis=1)
    if part.feature.combiner == "sum":
        return total
    if part.feature.combiner == "mean":
        divisor = weights.sum(axis=1)
    else:
        divisor = jnp.sqrt(jnp.square(weights).sum(axis=1))
    return total / jnp.where(divisor > 0.0, divisor, 1.0)[:, None]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _scale_gradient(x: jax.Array, factor: float) -> jax.Array:
    """Returns `x`; its gradient is multiplied by `factor`."""
    return x


def _scale_gradient_forward(x: jax.Array, factor: float) -> tuple[jax.Array, None]:
    return x, None


def _scale_gradient_backward(factor: float, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (gradient * jnp.asarray(factor, gradient.dtype),)


_scale_gradient.defvjp(_scale_gradient_forward, _scale_gradient_backward)
