"""Reading data: dated folders -> files -> records -> columns -> batches.

Each step is useful alone. `find_files` lists the files of a range of dates, `read_columns` turns
one TFRecord file of tf.Examples into numpy columns without TensorFlow, `Dataset` makes batch k of
epoch after epoch a pure function of (files, seed, k), and `prefetch` runs any such function ahead
of its consumer in the background.
"""

from monolith_jax.input.dataset import Dataset
from monolith_jax.input.files import DataFile, find_files, read_meta
from monolith_jax.input.prefetch import Prefetch, prefetch
from monolith_jax.input.schema import (
    Batch,
    Column,
    Columns,
    Ragged,
    Schema,
    concat_rows,
    num_rows,
    take_rows,
)
from monolith_jax.input.tfrecord import count_records, read_columns

__all__ = [
    "Batch",
    "Column",
    "Columns",
    "DataFile",
    "Dataset",
    "Prefetch",
    "Ragged",
    "Schema",
    "concat_rows",
    "count_records",
    "find_files",
    "num_rows",
    "prefetch",
    "read_columns",
    "read_meta",
    "take_rows",
]
