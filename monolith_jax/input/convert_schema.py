"""The schema file of `monolith-jax data convert`: which column becomes which feature, and how.

TOML or JSON, by the file's extension. All that can be said:

    [timestamp]                     # decides on day and hour
    column = "time"
    unit = "s"                      # s, ms, us, ns since 1970 UTC, or iso8601 (no zone means UTC)
    feature = "timestamp"           # optional: keep it as an int64 feature too, in seconds

    [columns.user]                  # the column's name in the data; columns not named are left out
    feature = "user_id"             # optional: another name for the feature
    dtype = "int64"                 # int64 (the default) or float32
    hash_buckets = 100_000          # any text -> blake2b(text) mod this, in [0, hash_buckets)

    [columns.country]
    vocabulary = ["de", "fr"]       # text -> its index; or "build": in order of first appearance
    unknown = 2                     # optional: the id of a text that is not listed, else an error
    default = 2                     # optional: the value of an empty cell, else an error

    [columns.genres]
    separator = "|"                 # a list: variable length, an empty cell is an empty list
    vocabulary = "build"

    [csv]                           # optional
    delimiter = ","
    names = ["user", "time"]        # optional: the columns' names of a file without a header line
    encoding = "utf-8"
"""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from monolith_jax.errors import ConfigError, did_you_mean

Unit = Literal["s", "ms", "us", "ns", "iso8601"]
BUILD = "build"


def _is_int64(value: int | float) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63


@dataclass(frozen=True, kw_only=True)
class TimestampColumn:
    """The column that says when: its unit, and the name under which it is kept (or None)."""

    column: str
    unit: Unit = "s"
    feature: str | None = None

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            choices = did_you_mean(str(self.unit), get_args(Unit))
            raise ConfigError(f"unknown unit {self.unit!r}: {choices}")


@dataclass(frozen=True, kw_only=True)
class FeatureColumn:
    """One column of the data that becomes one feature.

    Attributes:
      column: its name in the data.
      feature: its name in the tf.Example; the column's name if empty.
      dtype: int64 or float32.
      separator: splits a cell into a list; None: one value per cell.
      hash_buckets: texts become blake2b(text, 8 bytes, little-endian) mod this.
      vocabulary: texts become their index; "build": in order of first appearance.
      unknown: the id of a text that is not in the vocabulary; None: an error.
      default: the value of an empty cell; None: an error (a list is just empty).
    """

    column: str
    feature: str = ""
    dtype: Literal["int64", "float32"] = "int64"
    separator: str | None = None
    hash_buckets: int | None = None
    vocabulary: tuple[str, ...] | Literal["build"] | None = None
    unknown: int | None = None
    default: int | float | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("int64", "float32"):
            raise ConfigError(f"unknown dtype {self.dtype!r}: valid choices: float32, int64")
        if self.hash_buckets is not None and self.vocabulary is not None:
            raise ConfigError("hash_buckets and vocabulary exclude each other")
        if self.dtype == "float32" and (self.hash_buckets or self.vocabulary is not None):
            raise ConfigError("hash_buckets and vocabulary give ids: dtype must be int64")
        if self.hash_buckets is not None and self.hash_buckets < 1:
            raise ConfigError(f"hash_buckets must be at least 1, got {self.hash_buckets}")
        if self.separator == "":
            raise ConfigError("separator must not be empty")
        if self.unknown is not None and not isinstance(self.vocabulary, tuple):
            raise ConfigError("unknown goes with a vocabulary that is listed")
        if isinstance(self.vocabulary, tuple) and len({*self.vocabulary}) < len(self.vocabulary):
            raise ConfigError("vocabulary lists a text twice")
        for name, value in (("default", self.default), ("unknown", self.unknown)):
            if self.dtype == "int64" and value is not None and not _is_int64(value):
                raise ConfigError(f"{name} {value!r} is not of dtype int64")

    @property
    def name(self) -> str:
        """The feature's name."""
        return self.feature or self.column


@dataclass(frozen=True, kw_only=True)
class CsvFormat:
    """How a CSV file is written."""

    delimiter: str = ","
    names: tuple[str, ...] | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise ConfigError(f"delimiter must be one character, got {self.delimiter!r}")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ConfigError(f"unknown encoding {self.encoding!r}") from error


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What `convert` does with the columns of a table."""

    timestamp: TimestampColumn
    columns: tuple[FeatureColumn, ...]
    csv: CsvFormat = CsvFormat()

    def __post_init__(self) -> None:
        if not self.columns:
            raise ConfigError("no [columns.NAME]: nothing to write")
        names = [column.name for column in self.columns]
        if self.timestamp.feature:
            names.append(self.timestamp.feature)
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two columns become the feature {name!r}")

    def source_columns(self) -> list[str]:
        """Returns the names of the columns that must be in the data."""
        return list(dict.fromkeys([self.timestamp.column, *(c.column for c in self.columns)]))


def load_schema(path: str | os.PathLike[str]) -> Schema:
    """Reads a schema file, TOML or JSON by its extension.

    Raises:
      ConfigError: names the file and the key at fault, and the valid choices.
    """
    path = Path(path)
    if path.suffix not in (".toml", ".json"):
        raise ConfigError(f"{path}: a schema file ends in .toml or .json")
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # TOML's, JSON's and UTF-8's errors, all three.
        raise ConfigError(f"{path}: {error}") from error
    return parse_schema(document, where=str(path))


def parse_schema(document: Any, *, where: str = "schema") -> Schema:
    """Makes a `Schema` of what a schema file holds; `where` begins the errors.

    Raises:
      ConfigError: an unknown key, a missing one, or a value of another type.

    Example:
      >>> schema = parse_schema({"timestamp": {"column": "time"}, "columns": {"user": {}}})
      >>> schema.columns[0].name, schema.timestamp.unit
      ('user', 's')
    """
    table = _table(document, where, ("timestamp", "columns", "csv"))
    if "timestamp" not in table:
        raise ConfigError(f"{where}: [timestamp] is missing: which column says when?")
    columns = table.get("columns", {})
    if not isinstance(columns, Mapping):
        raise ConfigError(f"{where}: columns: expected tables [columns.NAME], got {columns!r}")
    try:
        return Schema(
            timestamp=_build(TimestampColumn, table["timestamp"], f"{where}: timestamp"),
            columns=tuple(
                _build(FeatureColumn, spec, f"{where}: columns.{name}", column=name)
                for name, spec in columns.items()
            ),
            csv=_build(CsvFormat, table.get("csv", {}), f"{where}: csv"),
        )
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(where) else f"{where}: {error}") from error


_TYPES: dict[str, tuple[type, ...]] = {
    "hash_buckets": (int,),
    "unknown": (int,),
    "default": (int, float),
    "names": (list,),
    "vocabulary": (list, str),
}


def _build(cls: Any, document: Any, where: str, **known: Any) -> Any:
    """Makes a `cls` of a table whose keys are its fields (all but those in `known`)."""
    table = _table(document, where, [f.name for f in fields(cls) if f.name not in known])
    values = dict(known)
    for key, value in table.items():
        expected = _TYPES.get(key, (str,))
        if not isinstance(value, expected) or isinstance(value, bool):
            names = " or ".join(kind.__name__ for kind in expected)
            raise ConfigError(f"{where}.{key}: expected {names}, got {value!r}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{where}.{key}: expected a list of texts, got {value!r}")
        if key == "vocabulary" and isinstance(value, str) and value != BUILD:
            raise ConfigError(f'{where}.{key}: expected a list or "{BUILD}", got {value!r}')
        values[key] = tuple(value) if isinstance(value, list) else value
    if cls is TimestampColumn and "column" not in values:
        raise ConfigError(f"{where}.column is missing: which column says when?")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _table(document: Any, where: str, keys: Iterable[str]) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise ConfigError(f"{where}: expected a table, got {document!r}")
    for key in document:
        if key not in keys:
            raise ConfigError(f"{where}: unknown key {key!r}: {did_you_mean(key, keys)}")
    return document
