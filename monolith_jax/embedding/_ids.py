"""From columns of ids and weights to physical rows and weights, with every one checked."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numba import njit

from monolith_jax._cache import cached_njit
from monolith_jax._host_arrays import empty
from monolith_jax.embedding._parts import Part
from monolith_jax.embedding._stacks import Stack
from monolith_jax.embedding.config import FeatureConfig
from monolith_jax.errors import DataError, did_you_mean

_kernel = cached_njit(nogil=True)

_OK, _OUT_OF_RANGE, _TOO_LONG, _NEGATIVE, _WEIGHT = 0, 1, 2, 3, 4
_ERROR, _MODULO, _ZERO = 0, 1, 2
_POLICIES = {"error": _ERROR, "modulo": _MODULO, "zero": _ZERO}


def physical_rows(
    stack: Stack,
    columns: Mapping[str, Any],
    batch_size: int,
    order: Literal["C", "F"] = "C",
    dtype: Any = np.int64,
) -> np.ndarray:
    """Returns the physical row of every id of a batch, [batch, ids per example]; -1: no id.

    Args:
      stack: the tables and the lookups into them; the ids of one lie side by side, in order.
      columns: by name, integers [batch] or [batch, k], or a ragged column (`values`, `offsets`).
      batch_size: rows that every column must have.
      order: what lies side by side in memory: an example's ids, "C", or a feature's, "F".
      dtype: int64, or int32 where it holds the rows.

    Raises:
      DataError: names the feature, the column, the example and the id at fault.
    """
    rows = empty((batch_size, stack.ids_per_example), dtype, order)
    start = 0
    for part in stack.features:
        feature = part.feature
        table, offset = stack.table(part.table)
        values, offsets, each = _column(feature, columns, batch_size)
        mine = rows[:, start : start + part.max_length]
        if part.hashed or feature.negative != "none":
            values = _mapped(part, values, offsets, each)
        fault, example, found = _place(
            values,
            offsets,
            each,
            mine,
            table.vocab_size,
            offset,
            _POLICIES[feature.out_of_range],
            feature.too_long == "truncate",
            _shape(stack, part.table),
        )
        if fault != _OK:
            raise DataError(_message(part, fault, example, found))
        if feature.weights:
            mine[_weights(part, columns, batch_size) == 0.0] = -1
        start += part.max_length
    return rows


def id_weights(stack: Stack, columns: Mapping[str, Any], batch_size: int) -> np.ndarray | None:
    """Returns the weight of every id, float32 [batch, ids per example], in `physical_rows`' order.

    1 where a feature has no weights; None where no feature of the stack has any.

    Args:
      stack: the tables and the lookups into them.
      columns: by name, as for `physical_rows`; weights are floats.
      batch_size: rows that every column must have.

    Raises:
      DataError: weights that do not go with their ids, are negative or not finite.
    """
    if not stack.weighted:
        return None
    parts = [
        _weights(part, columns, batch_size)
        if part.feature.weights
        else np.ones((batch_size, part.max_length), np.float32)
        for part in stack.features
    ]
    return np.concatenate(parts, axis=1)


def _mapped(part: Part, values: np.ndarray, offsets: np.ndarray, each: int) -> np.ndarray:
    """Returns the rows that ids stand for where a rule for negative ones or hashing has a say.

    Raises:
      DataError: an id that a rule makes an error.
    """
    feature = part.feature
    if feature.negative == "error":
        _refuse(part, _NEGATIVE, values < 0, values, offsets, each)
    elif feature.negative == "first":
        values = np.maximum(values, 0)
    if not part.hashed:
        return values
    beyond = values >= part.ids
    if feature.out_of_range == "error":
        _refuse(part, _OUT_OF_RANGE, beyond, values, offsets, each)
    other = -1 if feature.out_of_range == "zero" else values % part.ids
    rows = np.where(beyond, other, values)
    hashed = rows // part.divisor if part.divisor > 1 else rows
    hashed = hashed % part.modulus if part.modulus else hashed
    return np.where(rows < 0, -1, hashed)


def _refuse(
    part: Part, fault: int, bad: np.ndarray, values: np.ndarray, offsets: np.ndarray, each: int
) -> None:
    """Raises if an id that is looked up is bad; names the first of them and its example.

    What lies behind `max_length` in its example is cut, or an error of its own.
    """
    if not bad.any():
        return
    places = np.flatnonzero(bad)
    if each >= 0:
        examples, nth = np.divmod(places, each)
    else:
        examples = np.searchsorted(offsets, places, side="right") - 1
        nth = places - offsets[examples]
    looked_up = np.flatnonzero(nth < part.max_length)
    if looked_up.size:
        first = looked_up[0]
        raise DataError(_message(part, fault, int(examples[first]), int(values[places[first]])))


def _weights(part: Part, columns: Mapping[str, Any], batch_size: int) -> np.ndarray:
    """Returns the weights of one feature's ids, float32 [batch, max_length], 0 behind the last."""
    feature = part.feature
    where = f"feature {feature.name!r}: weights column {feature.weights!r}"
    if feature.weights not in columns:
        raise DataError(
            f"{where}: the data has no such column: {did_you_mean(feature.weights, columns)}"
        )
    _, offsets, each = _column(feature, columns, batch_size)
    column = columns[feature.weights]
    ragged = hasattr(column, "offsets")
    values = np.asarray(column.values if ragged else column)
    if not np.issubdtype(values.dtype, np.floating):
        raise DataError(f"{where} is {values.dtype}, weights must be float32")
    if ragged != (each < 0) or (
        not np.array_equal(column.offsets, offsets) if ragged else values.size != each * batch_size
    ):
        raise DataError(f"{where} does not have one weight for each id of {feature.source!r}")
    found = np.zeros((batch_size, part.max_length), np.float32)
    flat = np.ascontiguousarray(values, np.float32).ravel()
    fault, example, k = _place_weights(flat, offsets, each, found)
    if fault != _OK:
        raise DataError(
            f"{where}, example {example} of the batch: weight {flat[k]} is negative or not finite"
        )
    return found


def _shape(stack: Stack, table: str) -> tuple[int, int, int, int, int, int]:
    """Returns what the kernel needs of a table's place in the layout.

    A shift of -1 means no power of two; a block of 0 lines means that lines are dealt out in turn,
    and else the last number is the line at which the table's block starts in each shard.
    """
    layout = stack.layout
    power = layout.shards & (layout.shards - 1) == 0
    shift = layout.shards.bit_length() - 1 if power else -1
    block = first = 0
    if layout.blocks:
        nth = next(i for i, one in enumerate(stack.tables) if one.name == table)
        block, first = layout.blocks[nth], sum(layout.blocks[:nth])
    pack_shift = layout.pack.bit_length() - 1
    return pack_shift, layout.shards, shift, layout.lines_per_shard, block, first


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


def _message(part: Part, fault: int, example: int, found: int) -> str:
    feature = part.feature
    where = f"feature {feature.name!r} (column {feature.source!r}), example {example} of the batch"
    if fault == _TOO_LONG:
        return (
            f"{where}: {found} ids, max_length is {feature.max_length}; raise it, or set "
            "too_long to truncate"
        )
    if fault == _NEGATIVE:
        return f"{where}: id {found} is negative; set negative to none or first to allow it"
    if feature.quotient_table:
        return (
            f"{where}: id {found} is outside tables {feature.table!r} and "
            f"{feature.quotient_table!r}, which have {part.ids} ids together; raise their "
            "vocab_size, or set out_of_range to modulo or zero"
        )
    return (
        f"{where}: id {found} is outside table {part.table!r} of vocab_size {part.ids}; "
        "raise vocab_size, or set out_of_range to modulo or zero"
    )


@njit(nogil=True, inline="always")
def _physical(row, shape):  # type: ignore[no-untyped-def]
    """`Layout.physical`, with shifts for the divisions wherever they are by powers of two.

    In step with `_layout.Layout.physical_line`; the tests compare the two.
    """
    pack_shift, shards, shard_shift, lines_per_shard, block, first = shape
    line = row >> pack_shift
    if block > 0:
        line -= first * shards
        shard, nth = line // block, first + line % block
    elif shard_shift >= 0:
        shard, nth = line & (shards - 1), line >> shard_shift
    else:
        shard, nth = line % shards, line // shards
    place = row & ((np.int64(1) << pack_shift) - 1)
    return ((shard * lines_per_shard + nth) << pack_shift) + place


@_kernel
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
            rows[example, k] = _physical(offset + id_, shape) if id_ >= 0 else np.int64(-1)
        for k in range(count, most):
            rows[example, k] = -1
    return _OK, 0, np.int64(0)


@_kernel
def _place_weights(values, offsets, each, weights):  # type: ignore[no-untyped-def]
    """Writes one feature's weights; returns (fault, example, where the fault is in `values`)."""
    most = weights.shape[1]
    for example in range(weights.shape[0]):
        low = example * each if each >= 0 else offsets[example]
        count = each if each >= 0 else offsets[example + 1] - low
        for k in range(min(count, most)):
            weight = values[low + k]
            if not (weight >= 0.0 and weight < np.inf):
                return _WEIGHT, example, low + k
            weights[example, k] = weight
    return _OK, 0, np.int64(0)
