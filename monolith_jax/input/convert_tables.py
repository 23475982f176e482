"""CSV and parquet files to rows, one at a time, each knowing where it stands in its file."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from monolith_jax.errors import ConfigError, DataError, did_you_mean
from monolith_jax.input.convert_schema import CsvFormat, Schema

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A row: where it stands (for errors), its cells by column, and the bytes read so far."""

    where: str
    cells: dict[str, Any]
    offset: int


def rows(path: Path, schema: Schema) -> Iterator[Row]:
    """Yields the rows of a CSV or parquet file, with the cells that the schema needs.

    Raises:
      ConfigError: a file of an unknown kind, or parquet without pyarrow.
      DataError: a missing column or a damaged file; names the file and the line.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = suffixes[-1:] == [".gz"]
    kind = suffixes[-2 if compressed else -1] if len(suffixes) > compressed else ""
    if kind in (".csv", ".tsv", ".txt"):
        return _csv_rows(path, schema.csv, schema.source_columns(), compressed)
    if kind in (".parquet", ".pq") and not compressed:
        return _parquet_rows(path, schema.source_columns())
    raise ConfigError(f"{path}: expected .csv, .tsv, .txt (also with .gz) or .parquet")


def size(path: Path) -> int:
    """Returns the bytes of a file.

    Raises:
      DataError: if it is not there.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _csv_rows(path: Path, form: CsvFormat, wanted: list[str], compressed: bool) -> Iterator[Row]:
    # utf-8-sig drops the mark that spreadsheets put before the first column's name.
    encoding = "utf-8-sig" if form.encoding.lower() in ("utf-8", "utf8") else form.encoding
    line = 0
    try:
        with open(path, "rb") as raw:
            binary: Any = gzip.GzipFile(fileobj=raw) if compressed else raw
            text = io.TextIOWrapper(binary, encoding=encoding, newline="")
            reader = csv.reader(text, delimiter=form.delimiter, strict=True)
            names = list(form.names) if form.names is not None else next(reader, [])
            indices = _indices(f"{path}:1", names, wanted)
            for cells in reader:
                line = reader.line_num
                if not cells:
                    continue
                if len(cells) != len(names):
                    raise DataError(f"{path}:{line}: {len(cells)} cells, but {len(names)} columns")
                picked = {name: cells[i] for name, i in indices.items()}
                yield Row(f"{path}:{line}", picked, raw.tell())
    except (csv.Error, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: after line {line}: {error}") from error


def _parquet_rows(path: Path, wanted: list[str]) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"{path}: parquet needs pyarrow: pip install 'monolith-jax[data]'"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _indices(str(path), file.schema_arrow.names, wanted)
            bytes_, total, row = size(path), max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(batch_size=8192, columns=wanted):
                names = batch.schema.names
                columns = [_values(pyarrow, column) for column in batch.columns]
                for cells in zip(*columns, strict=True):
                    row += 1
                    picked = dict(zip(names, cells, strict=True))
                    yield Row(f"{path}: row {row}", picked, bytes_ * row // total)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: {error}") from error


def _values(pyarrow: Any, column: Any) -> list[Any]:
    """Returns an Arrow column as Python values; times as UTC, without need of a zone database."""
    if not pyarrow.types.is_timestamp(column.type):
        return column.to_pylist()
    micros = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
    values = micros.cast(pyarrow.int64()).to_pylist()
    return [None if v is None else _EPOCH + timedelta(microseconds=v) for v in values]


def _indices(where: str, names: list[str], wanted: list[str]) -> dict[str, int]:
    for name in wanted:
        if names.count(name) != 1:
            found = f"{names.count(name)} columns" if name in names else "no column"
            raise DataError(f"{where}: {found} named {name!r}: {did_you_mean(name, names)}")
    return {name: names.index(name) for name in wanted}
