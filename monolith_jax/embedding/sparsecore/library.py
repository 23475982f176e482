"""All that is used of jax-tpu-embedding: its host code, its two operations, its array layout.

It is imported within the functions: who only reads what is refused, or has Python 3.11, is without
it.
"""

# It has no type information, and is not there everywhere.
# mypy: disable-error-code="import-not-found, import-untyped"

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.embedding.sparsecore.formula import Formula
from monolith_jax.embedding.sparsecore.layout import CoreLayout
from monolith_jax.embedding.sparsecore.lookups import CoreLookups

PADDING = 2**31 - 1
"""Between the owners' shares of a buffer."""

_NAME = "stack"


@dataclass(frozen=True)
class Buffers:
    """What the library's host code makes of a batch's ids, of C SparseCores in all.

    Attributes:
      ends: int32 [C, C]; per SparseCore and owner, where the owner's entries end.
      rows: int32 [C, n]; each entry's row within its owner; undefined between the shares.
      samples: int32 [C, n]; each entry's sample within its SparseCore.
      gains: float32 [C, n]; how often its sample has the row.
    """

    ends: np.ndarray
    rows: np.ndarray
    samples: np.ndarray
    gains: np.ndarray


def preprocess(
    layout: CoreLayout, ids: np.ndarray, samples: np.ndarray, per_core: int, most: int, size: int
) -> Buffers:
    """Returns a batch's ids sorted by SparseCore, owner and row, each pair of row and sample once.

    The limits must hold: where one does not, the library ends the process, or drops ids and only
    says so on standard error. `prepare` counts before and after.

    Args:
      layout: of the stack.
      ids: int64 [m], as `CoreLayout.id_of` gives them.
      samples: int64 [m], ascending: those of each SparseCore lie together.
      per_core: samples of one SparseCore.
      most: entries of one SparseCore for one owner, at most.
      size: entries of one SparseCore, a multiple of 8; what its owners' shares take.
    """
    from jax_tpu_embedding.sparsecore.lib.nn import embedding

    cores, total = layout.total_cores, per_core * layout.total_cores
    spec = _spec(layout, total, max(most, 1), size * layout.cores)
    indices = np.zeros((len(ids), 2), np.int64)
    indices[:, 0] = samples
    found, _ = embedding.preprocess_sparse_dense_matmul_input_from_sparse_tensor(
        [indices],
        [ids.astype(np.int32)],
        [np.array([total, 1], np.int64)],
        [spec],
        layout.devices,
        layout.devices,
        num_sc_per_device=layout.cores,
    )
    made = found.sparse_dense_matmul_input
    pointers = made.lhs_row_pointers[_NAME].reshape(cores, -1)
    return Buffers(
        ends=pointers[:, :cores],
        rows=made.lhs_embedding_ids[_NAME].reshape(cores, -1),
        samples=made.lhs_sample_ids[_NAME].reshape(cores, -1),
        gains=made.lhs_gains[_NAME].reshape(cores, -1),
    )


def _spec(layout: CoreLayout, samples: int, most: int, size: int) -> Any:
    """Returns the library's description of a table with one feature, which a stack is to it."""
    from jax_tpu_embedding.sparsecore.lib.nn import embedding, embedding_spec

    table = embedding_spec.TableSpec(
        name=_NAME,
        vocabulary_size=layout.shape[0],
        embedding_dim=layout.width,
        initializer=jax.nn.initializers.zeros,
        optimizer=embedding_spec.SGDOptimizerSpec(),
        combiner="sum",
        max_ids_per_partition=most,
        max_unique_ids_per_partition=most,
        suggested_coo_buffer_size_per_device=size,
    )
    feature = embedding_spec.FeatureSpec(
        name=_NAME,
        table_spec=table,
        input_shape=(samples,),
        output_shape=(samples, layout.width),
    )
    embedding.prepare_feature_specs_for_training([feature], layout.devices, layout.cores)
    return feature


def lookup(lookups: CoreLookups, table: jax.Array, samples: int) -> jax.Array:
    """Returns the samples' vectors, float32 [samples, width], on one device, within `shard_map`.

    Args:
      lookups: this device's part.
      table: this device's block, [rows, width].
      samples: of this device.
    """
    from jax_tpu_embedding.sparsecore.lib.core.primitives import sparse_dense_matmul_csr

    operation = sparse_dense_matmul_csr.tpu_sparse_dense_matmul_csr_primitive
    found: jax.Array = operation.bind(
        *_matrix(lookups),
        table,
        device_batch_size=samples,
        max_ids_per_partition=lookups.max_ids,
        max_unique_ids_per_partition=lookups.max_rows,
    )
    return found


def update(
    lookups: CoreLookups,
    arrays: tuple[jax.Array, ...],
    gradient: jax.Array,
    numbers: tuple[jax.Array, ...],
    formula: Formula,
    name: str,
) -> tuple[jax.Array, ...]:
    """Returns table and slots after one step, on one device, within `shard_map`.

    Args:
      lookups: this device's part.
      arrays: this device's blocks of the table and of its slots, [rows, width] each.
      gradient: of the samples' vectors, [samples, width].
      numbers: what the formula takes beside rows, float32 [] each.
      formula: of a row.
      name: of the stack; names the computation.
    """
    from jax_tpu_embedding.sparsecore.lib.core.primitives import (
        sparse_dense_matmul_optimizer_grad as module,
    )

    found = module.tpu_sparse_dense_matmul_optimizer_grad_primitive.bind(
        *_matrix(lookups),
        gradient,
        *numbers,
        *arrays,
        num_hyperparameters=len(numbers),
        stablehlo=formula.text,
        max_ids_per_partition=lookups.max_ids,
        max_unique_ids_per_partition=lookups.max_rows,
        computation_name=f"update_{name}",
    )
    return tuple(found)


def _matrix(lookups: CoreLookups) -> tuple[jax.Array, ...]:
    """Returns the operands that both operations begin with; the last: the batch is in one piece."""
    return lookups.pointers, lookups.rows, lookups.samples, lookups.gains, jnp.int32(1)


def table_format(sharding: Any) -> Any:
    """Returns the layout in memory that SparseCores want; XLA would copy tables in another."""
    from jax_tpu_embedding.sparsecore.utils import utils

    return utils.embedding_table_format_with_sharding(sharding)


def known_devices() -> dict[str, int]:
    """Returns the library's own table of SparseCores by kind of device."""
    from jax_tpu_embedding.sparsecore.utils import utils

    return dict(utils.NUM_SC_PER_DEVICE_MAP)
