"""A user's CSV or parquet files into dated TFRecords, as a schema file says.

    monolith-jax data convert clicks.csv more.parquet --schema schema.toml --root DATA

Texts become ids by hashing or by a vocabulary, which is written to `ROOT/vocabulary.json` and goes
on where it ended when more days are added. The data is written day by day (`write_dated`), the
whole of it or none.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input.convert_cells import Cells, to_seconds
from monolith_jax.input.convert_schema import BUILD, Schema
from monolith_jax.input.convert_tables import Row, rows, size
from monolith_jax.input.write import atomic_file, encode_example
from monolith_jax.input.write_dated import DatedWriter

VOCABULARY = "vocabulary.json"
_EVERY = 10_000  # rows between two calls of `progress`

Progress = Callable[[str, float, int], None]
"""Called now and then with the file being read, the fraction of all bytes done, and the rows."""


class Converted(NamedTuple):
    """What `convert` wrote: the number of records, of days, and the size of each vocabulary."""

    records: int
    days: int
    vocabulary_sizes: dict[str, int]


def convert(
    files: Sequence[str | os.PathLike[str]],
    schema: Schema,
    root: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> Converted:
    """Writes the rows of `files` to `ROOT/YYYYMMDD/HH/part-*`, `ROOT/meta.csv` and a vocabulary.

    Args:
      files: CSV (`.csv`, `.tsv`, `.txt`, also with `.gz`) or parquet (`.parquet`), in the order in
        which their rows go into a file of equal hour. Memory does not grow with their size.
      schema: from `load_schema` or `parse_schema`.
      root: local folder. Days that it already holds are an error, others are added.
      progress: called every 10,000 rows and at the end of each file.

    Raises:
      DataError: names file, line (parquet: row), column, value and what would be valid; nothing is
        written then.
      ConfigError: a file of an unknown kind, or parquet without pyarrow.
    """
    if not files:
        raise ConfigError("no files to convert")
    paths = [Path(file) for file in files]
    total = sum(size(path) for path in paths) or 1
    stored = _read_vocabularies(Path(root) / VOCABULARY)
    vocabularies = _start_vocabularies(Path(root) / VOCABULARY, stored, schema)
    columns = [Cells(c, vocabularies.get(c.name)) for c in schema.columns]
    done = 0
    with DatedWriter(root) as writer:
        for path in paths:
            for row in rows(path, schema):
                _write(writer, row, schema, columns)
                if progress is not None and writer.count % _EVERY == 0:
                    progress(str(path), (done + row.offset) / total, writer.count)
            done += size(path)
            if progress is not None:
                progress(str(path), done / total, writer.count)
        if vocabularies:
            _save_vocabularies(Path(root) / VOCABULARY, stored, vocabularies)
    sizes = {name: len(vocabulary) for name, vocabulary in vocabularies.items()}
    return Converted(writer.count, writer.days, sizes)


def _write(writer: DatedWriter, row: Row, schema: Schema, columns: list[Cells]) -> None:
    name = schema.timestamp.column
    try:
        time = to_seconds(row.cells[name], schema.timestamp.unit)
        features: dict[str, Any] = {}
        for column in columns:
            name = column.spec.column
            features[column.spec.name] = column(row.cells[name])
    except ValueError as error:
        raise DataError(f"{row.where}: column {name!r}: {error}") from error
    if schema.timestamp.feature:
        features[schema.timestamp.feature] = time
    try:
        writer.write(time, encode_example(features))
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from error


def _read_vocabularies(path: Path) -> dict[str, list[str]]:
    """Returns the texts of each feature in the order of their ids, as an earlier call left them."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {name: [str(text) for text in texts] for name, texts in stored.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: not a vocabulary: {error}") from error


def _start_vocabularies(
    path: Path, stored: dict[str, list[str]], schema: Schema
) -> dict[str, dict[str, int]]:
    """Returns text -> id of each feature with a vocabulary; a built one goes on where it ended."""
    vocabularies = {}
    for column in schema.columns:
        if column.vocabulary is not None:
            before = stored.get(column.name, [])
            texts = before if column.vocabulary == BUILD else list(column.vocabulary)
            if texts[: len(before)] != before:
                raise DataError(
                    f"{path}: feature {column.name!r} has other ids in the days already there; "
                    "new texts may only be added at the end of its vocabulary"
                )
            vocabularies[column.name] = {text: i for i, text in enumerate(texts)}
    return vocabularies


def _save_vocabularies(
    path: Path, stored: dict[str, list[str]], vocabularies: dict[str, dict[str, int]]
) -> None:
    document = stored | {name: list(vocabulary) for name, vocabulary in vocabularies.items()}
    with atomic_file(path) as file:
        file.write(json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
