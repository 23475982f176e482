"""The task config: what it reads, and what it refuses."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.errors import ConfigError
from monolith_jax.input import Column, Ragged, read_columns
from monolith_jax.input.write import encode_example, frame
from monolith_jax.models import DeepFMConfig
from monolith_jax.task import InputConfig, LabelConfig, TaskConfig, TrainConfig

TABLE = TableConfig(name="ids", vocab_size=10, dim=4)


def task(*features: FeatureConfig, **changes: Any) -> TaskConfig:
    fields: dict[str, Any] = {"tables": (TABLE,), "features": features}
    return TaskConfig(model=DeepFMConfig(vectors=("a",)), **(fields | changes))


def feature(name: str, **changes: Any) -> FeatureConfig:
    return FeatureConfig(name=name, table="ids", **changes)


def test_schema_is_label_dense_and_ids_each_once() -> None:
    config = task(
        feature("a"),
        feature("b", column="a"),
        feature("c", max_length=3),
        dense=("x",),
        label=LabelConfig(column="y", dtype="int64"),
    )
    assert config.schema() == (
        Column("y", "int64"),
        Column("x", "float32"),
        Column("a", "int64"),
        Column("c", "int64", None),
    )


def test_one_column_declared_in_two_ways_is_an_error() -> None:
    config = task(feature("a"), feature("b", column="a", max_length=3))
    with pytest.raises(ConfigError, match="column 'a' is declared as"):
        config.schema()


def test_a_feature_of_an_unknown_table_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="looks up table 'id', which is not there: did you mean"):
        task(FeatureConfig(name="a", table="id"))


def test_what_is_not_required_has_no_ids_where_it_is_missing() -> None:
    config = task(feature("a", required=False), feature("b", required=False, max_length=3))
    records = [{"label": 1.0}, {"label": 0.0, "a": 3, "b": [1, 2]}]
    columns, _ = read_columns(b"".join(frame(encode_example(r)) for r in records), config.schema())
    np.testing.assert_array_equal(columns["a"], [-1, 3])
    assert isinstance(columns["b"], Ragged)
    assert [columns["b"].row(i).tolist() for i in range(2)] == [[], [1, 2]]


@pytest.mark.parametrize(
    ("group", "field"),
    [
        (InputConfig(), "batch_size"),
        (InputConfig(), "buffer"),
        (InputConfig(), "threads"),
        (TrainConfig(), "epochs"),
        (TrainConfig(), "log_every"),
        (TrainConfig(), "checkpoint_every"),
        (TrainConfig(), "keep_checkpoints"),
    ],
)
def test_counts_below_one_are_errors(group: Any, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} must be at least 1, got 0"):
        dataclasses.replace(group, **{field: 0})


def test_workers_are_none_or_some() -> None:
    assert InputConfig(workers=0).workers == 0
    with pytest.raises(ConfigError, match="workers must not be negative, got -1"):
        InputConfig(workers=-1)


def test_a_model_without_instantiate_is_itself_the_module() -> None:
    module = object()
    assert dataclasses.replace(task(feature("a")), model=module).instantiate() is module
