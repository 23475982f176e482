"""TFRecord files of tf.Examples, read into columns."""

import os
from typing import TypeAlias

from monolith_jax.input.schema import Columns, Schema

Source: TypeAlias = str | os.PathLike[str] | bytes


def read_columns(
    source: Source, schema: Schema, *, skip_damaged: bool = False, check_crc: bool = True
) -> tuple[Columns, int]:
    """Reads a whole TFRecord file into columns: (columns, number of damaged records skipped)."""
    raise NotImplementedError


def count_records(source: Source) -> int:
    """Counts the records of a TFRecord file by walking its framing only."""
    raise NotImplementedError
