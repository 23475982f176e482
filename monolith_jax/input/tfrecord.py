"""TFRecord files of tf.Examples, read into columns without TensorFlow.

The format is TensorFlow's (`tf.io.TFRecordWriter`, `tf.train.Example`), the result that of
`tf.io.parse_example` with FixedLenFeature and RaggedFeature. Compressed files are not read.
"""

from monolith_jax.errors import ConfigError
from monolith_jax.input._blocks import Source, open_source, source_name
from monolith_jax.input.schema import Columns, Schema


def read_columns(
    source: Source,
    schema: Schema,
    *,
    skip_damaged: bool = False,
    check_crc: bool = True,
    num_records: int | None = None,
) -> tuple[Columns, int]:
    """Reads a whole TFRecord file of tf.Examples into columns.

    Runs without the GIL, so that threads read several files at once. The first call in a process
    takes half a second to load the compiled walk, the first on a machine some seconds to compile.

    Args:
      source: a path, local or gs://, or the bytes of a file.
      schema: the columns to read; all other features are skipped.
      skip_damaged: count a damaged record and go on with the next, instead of raising. A record is
        damaged if its data does not match its checksum or is no tf.Example. A length that does not
        match its own checksum, or that reaches past the end, hides where the next record begins: it
        counts as one and ends the file, and a warning is logged. A sound record that does not fit
        the schema is an error in any case.
      check_crc: compare both checksums of each record; costs 5 to 10 per cent.
      num_records: the number of records if known, to allocate the columns at once. Only a hint.

    Returns:
      (columns, damaged): by name in the schema's order, [n], [n, length] or a `Ragged` of n rows,
      int64 or float32, read-only; and the number of damaged records left out.

    Raises:
      DataError: a file that cannot be read, a damaged record, or one that does not fit the schema;
        the message names the file, the record's number and byte offset, and what was found.
      ConfigError: no columns, or two of one name.

    Example:
      >>> from monolith_jax.input import Column
      >>> record = bytes.fromhex(
      ...     "0f00000000000000 6d532b09"  # 15 bytes, checksum
      ...     "0a0d 0a0b 0a02 6964 1205 1a03 0a01 2a"  # {"id": int64_list [42]}
      ...     "e7fb1693"
      ... )
      >>> columns, damaged = read_columns(record, (Column("id", "int64"),))
      >>> columns["id"].tolist(), damaged
      ([42], 0)
    """
    from monolith_jax.input import _reader
    from monolith_jax.input._layout import lay_out

    names = _names(schema)
    with open_source(source) as file:
        output, damaged = _reader.read(
            source_name(source),
            file,
            lay_out(tuple(schema)),
            check_crc=check_crc,
            skip_damaged=skip_damaged,
            num_records=num_records,
        )
    columns = output.columns()
    return {name: columns[name] for name in names}, damaged


def _names(schema: Schema) -> list[str]:
    """Returns the columns' names, checked."""
    if not schema:
        raise ConfigError("a schema without columns: there is nothing to read")
    names = [column.name for column in schema]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigError(f"columns declared twice: {', '.join(twice)}")
    return names


def count_records(source: Source) -> int:
    """Returns the number of records of a TFRecord file, from its framing alone.

    Each record's length is compared with its checksum, the data is not looked at.

    Args:
      source: a path, local or gs://, or the bytes of a file.

    Raises:
      DataError: a file that cannot be read, a damaged length, or a file that ends in the middle of
        a record; the message names the file and the byte offset.

    Example:
      >>> count_records(b"")
      0
    """
    from monolith_jax.input import _reader

    with open_source(source) as file:
        return _reader.count(source_name(source), file)
