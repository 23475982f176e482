"""The library's two operations in plain jax, from the same buffers: what the tests hold it against.

For small tables on any backend: numerics, whole runs and checkpoints can be checked without a chip.
Nothing chooses it by itself.
"""

import jax
import jax.numpy as jnp

from monolith_jax.embedding._formula import step_of
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding.sparsecore.layout import CoreLayout
from monolith_jax.embedding.sparsecore.lookups import CoreLookups
from monolith_jax.optimizers import UpdateRule


def lookup(layout: CoreLayout, lookups: CoreLookups, table: jax.Array, per_core: int) -> jax.Array:
    """Returns the samples' vectors, float32 [samples, width], of all devices at once.

    Args:
      layout: of the stack.
      lookups: of all devices.
      table: [rows, width], of all devices.
      per_core: samples of one SparseCore.
    """
    row, sample, gain = _entries(layout, lookups, per_core)
    moved = table.at[row].get(mode="fill", fill_value=0.0) * gain[:, None]
    empty = jnp.zeros((per_core * layout.total_cores, table.shape[1]), table.dtype)
    return empty.at[sample].add(moved, mode="drop")


def update(
    layout: CoreLayout,
    lookups: CoreLookups,
    arrays: tuple[jax.Array, ...],
    gradient: jax.Array,
    numbers: tuple[jax.Array, ...],
    rule: UpdateRule,
    per_core: int,
) -> tuple[jax.Array, ...]:
    """Returns table and slots after one step, of all devices at once.

    The gradient of a row is the sum over its samples, each times its gain; rows that no sample has
    stay as they are.
    """
    row, sample, gain = _entries(layout, lookups, per_core)
    touched, place = jnp.unique(row, return_inverse=True, size=row.size, fill_value=NONE)
    each = gradient.at[sample].get(mode="fill", fill_value=0.0) * gain[:, None]
    total = jnp.zeros((row.size, gradient.shape[1]), gradient.dtype).at[place].add(each)
    held = [array.at[touched].get(mode="fill", fill_value=1.0) for array in arrays]
    wide = [jnp.broadcast_to(number, total.shape) for number in numbers]
    new = step_of(rule)(total, *held, *wide)
    return tuple(
        array.at[touched].set(rows, mode="drop") for array, rows in zip(arrays, new, strict=True)
    )


def _entries(
    layout: CoreLayout, lookups: CoreLookups, per_core: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (row, sample, gain) of every entry of the buffers, flat; `NONE` and 0 in between."""
    cores = layout.total_cores
    ends = lookups.pointers.reshape(cores, -1)[:, :cores]
    starts = jnp.concatenate([jnp.zeros_like(ends[:, :1]), (ends[:, :-1] + 7) // 8 * 8], axis=1)
    n = lookups.rows.size // cores
    place = jnp.arange(n, dtype=jnp.int32)
    owner = jax.vmap(lambda end: jnp.searchsorted(end, place, side="right"))(ends)
    owner = owner.astype(jnp.int32)
    inside = owner < cores
    inside &= jnp.take_along_axis(starts, jnp.minimum(owner, cores - 1), axis=1) <= place
    row = owner * layout.rows_per_core + lookups.rows.reshape(cores, n)
    core = jnp.arange(cores, dtype=jnp.int32)[:, None]
    sample = core * per_core + lookups.samples.reshape(cores, n)
    gain = jnp.where(inside, lookups.gains.reshape(cores, n), 0.0)
    row, sample = jnp.where(inside, row, NONE), jnp.where(inside, sample, NONE)
    return row.reshape(-1), sample.reshape(-1), gain.reshape(-1)
