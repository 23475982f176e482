"""The engine of the SparseCores of v5p, v6e and TPU7x, through jax-tpu-embedding.

The extra `sparsecore` installs the library (Python 3.12 and up). `SparseCoreEngine` keeps the same
tables and features as `XlaEngine`, with the same checkpoints; `refusals` says what it cannot do.
"""

from monolith_jax.embedding.sparsecore.chips import (
    SparseCores,
    library_missing,
    sparsecores_of,
)
from monolith_jax.embedding.sparsecore.engine import SparseCoreEngine
from monolith_jax.embedding.sparsecore.limits import Limits
from monolith_jax.embedding.sparsecore.refused import refusals

__all__ = [
    "Limits",
    "SparseCoreEngine",
    "SparseCores",
    "library_missing",
    "refusals",
    "sparsecores_of",
]
