"""Monolith's embedding tables, which lie beside its checkpoints, not in them.

`open_assets` finds the tables of `model.ckpt-N.assets`, local or gs://; `Assets.read` gives ids,
embeddings and the slots of every optimizer as arrays, `Assets.batches` in parts, `Assets.report`
an overview; `place` puts entries into the rows of a table of fixed size. Neither TensorFlow nor
protobuf is needed. Damage is a `monolith_jax.errors.CheckpointError` that names file, table and
byte.
"""

from monolith_jax.checkpoint.monolith_assets._assets import Assets, open_assets
from monolith_jax.checkpoint.monolith_assets._place import (
    Placed,
    PlaceReport,
    place,
    signatures_of,
    slots_of,
)
from monolith_jax.checkpoint.monolith_assets._report import Report, TableReport
from monolith_jax.checkpoint.monolith_assets._tables import Slice, TableDump

__all__ = [
    "Assets",
    "PlaceReport",
    "Placed",
    "Report",
    "Slice",
    "TableDump",
    "TableReport",
    "open_assets",
    "place",
    "signatures_of",
    "slots_of",
]
