"""What is refused, and how it is said."""

import dataclasses
from typing import Any

import jax
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.embedding.sparsecore import SparseCoreEngine, SparseCores, refusals
from monolith_jax.embedding.sparsecore.refused import batch_refusals, table_refusals
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import Adam, Momentum, RMSProp, RowwiseAdagrad, Sgd


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "bfloat16"}, "table 'user': dtype bfloat16"),
        ({"optimizer": RowwiseAdagrad(learning_rate=0.1)}, "keeps one accumulator a row"),
        ({"optimizer": Adam()}, "Adam moves every row at every step"),
        ({"vocab_size": 2**31}, "2147483648 rows"),
    ],
)
def test_a_table_that_sparsecores_cannot_keep(changes: dict[str, Any], said: str) -> None:
    good = TableConfig(name="item", vocab_size=10, dim=8)
    bad = dataclasses.replace(good, name="user", **changes)
    (reason,) = table_refusals([good, bad])
    assert "'user'" in reason
    assert said in reason


@pytest.mark.parametrize(
    "rule",
    [
        Sgd(learning_rate=0.1),
        Momentum(learning_rate=0.1, momentum=0.9, use_nesterov=True),
        RMSProp(learning_rate=0.1, centered=True),
    ],
)
def test_rules_that_touch_the_batchs_rows_alone_are_served(rule: Any) -> None:
    assert table_refusals([TableConfig(name="t", vocab_size=10, dim=8, optimizer=rule)]) == ()


def test_a_batch_that_does_not_divide() -> None:
    (reason,) = batch_refusals(100, 16)
    assert "batch_size 100" in reason
    assert "96 and 112" in reason
    assert batch_refusals(96, 16) == ()
    assert "nearest 16" in batch_refusals(3, 16)[0]


def test_chips_without_sparsecores(known: Any) -> None:
    table = TableConfig(name="t", vocab_size=10, dim=8)
    (reason,) = refusals([table], 64, jax.devices("cpu")[0], 1)
    assert reason.startswith("cpu has no SparseCores; those that have: TPU v5")
    assert known("TPU v5 lite") is None
    assert known("TPU v4") is None
    assert known("TPU7x").count == 2


def test_the_kinds_are_the_librarys(known: Any, library: Any) -> None:
    from monolith_jax.embedding.sparsecore.library import known_devices

    assert {kind: known(kind).count for kind in known_devices()} == known_devices()


def test_a_forced_engine_names_table_and_reason() -> None:
    table = TableConfig(name="user", vocab_size=10, dim=8, dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"cannot serve: .*table 'user': dtype bfloat16"):
        SparseCoreEngine(
            [table],
            [FeatureConfig(name="user", table="user")],
            batch_size=8,
            emulated=SparseCores(4, 8192),
        )
    with pytest.raises(ConfigError, match="cpu has no SparseCores"):
        SparseCoreEngine([table], [FeatureConfig(name="user", table="user")], batch_size=8)
