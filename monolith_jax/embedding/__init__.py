"""Embedding tables: updated by the rows that a batch touches, packed, stacked, sharded.

Configs say what the tables and lookups are; an engine keeps the arrays. `prepare` deduplicates a
batch's ids on the host; `gather`, `combine` and `update` run inside the train step.
"""

from monolith_jax.embedding._lookups import Lookups, StackLookups
from monolith_jax.embedding.config import (
    Constant,
    FeatureConfig,
    Initializer,
    Normal,
    TableConfig,
    Uniform,
)
from monolith_jax.embedding.engine import Engine, Rows, State
from monolith_jax.embedding.slots import (
    FeatureColumn,
    FeatureSlice,
    FeatureSlot,
    QuotientRemainder,
    slot_configs,
)
from monolith_jax.embedding.vocabulary import Vocabulary, read_counts
from monolith_jax.embedding.xla import XlaEngine

__all__ = [
    "Constant",
    "Engine",
    "FeatureColumn",
    "FeatureConfig",
    "FeatureSlice",
    "FeatureSlot",
    "Initializer",
    "Lookups",
    "Normal",
    "QuotientRemainder",
    "Rows",
    "StackLookups",
    "State",
    "TableConfig",
    "Uniform",
    "Vocabulary",
    "XlaEngine",
    "read_counts",
    "slot_configs",
]
