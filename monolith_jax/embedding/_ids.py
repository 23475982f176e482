"""From a column's ids to physical rows, with every id checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from monolith_jax._cache import cached_njit
from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.config import FeatureConfig, TableConfig
from monolith_jax.errors import DataError, did_you_mean

_OK, _OUT_OF_RANGE, _TOO_LONG = 0, 1, 2
_ERROR, _MODULO, _ZERO = 0, 1, 2
_POLICIES = {"error": _ERROR, "modulo": _MODULO, "zero": _ZERO}


def physical_rows(stack: Stack, columns: Mapping[str, Any], batch_size: int) -> np.ndarray:
    """Returns the physical row of every id of a batch, int64 [batch, ids per example]; -1: no id.

    Args:
      stack: the tables and their features; a feature's ids lie side by side, in its order.
      columns: by name, integers [batch] or [batch, k], or a ragged column (`values`, `offsets`).
      batch_size: rows that every column must have.

    Raises:
      DataError: names the feature, the column, the example and the id at fault.
    """
    rows = np.full((batch_size, stack.ids_per_example), -1, np.int64)
    start = 0
    for feature in stack.features:
        table, offset = stack.table(feature.table)
        values, offsets, each = _column(feature, columns, batch_size)
        fault, example, found = _place(
            values,
            offsets,
            each,
            rows[:, start : start + feature.max_length],
            table.vocab_size,
            offset,
            _POLICIES[feature.out_of_range],
            feature.too_long == "truncate",
            _shape(stack.layout),
        )
        if fault != _OK:
            raise DataError(_message(feature, table, fault, example, found))
        start += feature.max_length
    return rows


def _shape(layout: Layout) -> tuple[int, int, int, int]:
    """Returns what the kernel needs of a layout; a shift of -1 means no power of two."""
    power = layout.shards & (layout.shards - 1) == 0
    shift = layout.shards.bit_length() - 1 if power else -1
    return layout.pack.bit_length() - 1, layout.shards, shift, layout.lines_per_shard


def _column(
    feature: FeatureConfig, columns: Mapping[str, Any], batch_size: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns (values flat, offsets, ids per example or -1 where the offsets say it)."""
    name = feature.source
    if name not in columns:
        raise DataError(
            f"feature {feature.name!r}: the data has no column {name!r}: "
            f"{did_you_mean(name, columns)}"
        )
    column = columns[name]
    ragged = hasattr(column, "offsets")
    values = np.asarray(column.values if ragged else column)
    if not np.can_cast(values.dtype, np.int64):
        raise DataError(
            f"feature {feature.name!r}: column {name!r} is {values.dtype}, ids must be int64"
        )
    if not ragged and values.ndim not in (1, 2):
        raise DataError(
            f"feature {feature.name!r}: column {name!r} has shape {values.shape}, expected "
            f"[{batch_size}] or [{batch_size}, k]"
        )
    found = len(column.offsets) - 1 if ragged else values.shape[0]
    if found != batch_size:
        raise DataError(
            f"feature {feature.name!r}: column {name!r} has {found} examples, expected {batch_size}"
        )
    each = -1 if ragged else values.size // max(1, batch_size)
    offsets = np.ascontiguousarray(column.offsets, np.int64) if ragged else np.zeros(0, np.int64)
    return np.ascontiguousarray(values, np.int64).ravel(), offsets, each


def _message(
    feature: FeatureConfig, table: TableConfig, fault: int, example: int, found: int
) -> str:
    where = f"feature {feature.name!r} (column {feature.source!r}), example {example} of the batch"
    if fault == _TOO_LONG:
        return (
            f"{where}: {found} ids, max_length is {feature.max_length}; raise it, or set "
            "too_long to truncate"
        )
    return (
        f"{where}: id {found} is outside table {table.name!r} of vocab_size {table.vocab_size}; "
        "raise vocab_size, or set out_of_range to modulo or zero"
    )


@cached_njit(nogil=True, inline="always")
def _physical(row, shape):  # type: ignore[no-untyped-def]
    """`Layout.physical`, with shifts for the divisions wherever they are by powers of two."""
    pack_shift, shards, shard_shift, lines_per_shard = shape
    line = row >> pack_shift
    if shard_shift >= 0:
        shard, nth = line & (shards - 1), line >> shard_shift
    else:
        shard, nth = line % shards, line // shards
    place = row & ((np.int64(1) << pack_shift) - 1)
    return ((shard * lines_per_shard + nth) << pack_shift) + place


@cached_njit(nogil=True)
def _place(  # type: ignore[no-untyped-def]
    values, offsets, each, rows, vocab_size, offset, policy, truncate, shape
):
    """Writes the physical rows of one feature's ids; returns (fault, example, what was found)."""
    most = rows.shape[1]
    for example in range(rows.shape[0]):
        low = example * each if each >= 0 else offsets[example]
        count = each if each >= 0 else offsets[example + 1] - low
        if count > most:
            if not truncate:
                return _TOO_LONG, example, count
            count = most
        for k in range(count):
            id_ = values[low + k]
            if id_ >= vocab_size:
                if policy == _MODULO:
                    id_ = id_ % vocab_size
                elif policy == _ZERO:
                    id_ = np.int64(-1)
                else:
                    return _OUT_OF_RANGE, example, id_
            if id_ >= 0:
                rows[example, k] = _physical(offset + id_, shape)
    return _OK, 0, np.int64(0)
