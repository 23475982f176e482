"""The place of every row: no two alike, balanced over devices, and stacks of like tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.embedding._ladder import capacity
from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._stacks import build_stacks
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import Adagrad, Sgd


@given(rows=st.integers(1, 5000), dim=st.integers(1, 300), shards=st.sampled_from([1, 3, 8, 64]))
@settings(max_examples=60, deadline=None)
def test_rows_have_places_of_their_own(rows: int, dim: int, shards: int) -> None:
    layout = Layout(rows, dim, shards)
    places = layout.physical(np.arange(rows))
    assert len(set(places.tolist())) == rows
    assert 0 <= places.min() <= places.max() < layout.physical_rows
    lines, width = layout.shape
    assert layout.width >= dim
    assert width % 128 == 0
    assert lines * width == layout.physical_rows * layout.width
    assert lines % shards == 0
    # Balanced: no shard holds more than one line above another.
    held = np.bincount(np.unique(places // layout.pack) // layout.lines_per_shard, minlength=shards)
    assert held.max() - held.min() <= 1


def test_padding_stays_small() -> None:
    layout = Layout(10_000_000, 16, 1024)
    assert layout.physical_rows < 1.001 * layout.rows


@given(needed=st.integers(0, 100_000), most=st.integers(1, 100_000))
def test_capacity_holds_and_is_tight(needed: int, most: int) -> None:
    needed = min(needed, most)
    size = capacity(needed, least=1024, most=most)
    assert needed <= size <= most
    assert size <= max(1.19 * needed + 256, 1024 + 128)


def test_capacity_has_few_sizes() -> None:
    assert len({capacity(n, least=2048, most=65_536) for n in range(65_537)}) == 21


def test_like_tables_share_a_stack() -> None:
    one, other = Adagrad(learning_rate=0.1), Adagrad(learning_rate=0.2)
    tables = [
        TableConfig(name="a", vocab_size=10, dim=16, optimizer=one),
        TableConfig(name="b", vocab_size=10, dim=1, optimizer=one),
        TableConfig(name="c", vocab_size=10, dim=16, optimizer=one),
        TableConfig(name="d", vocab_size=10, dim=16, optimizer=other),
        TableConfig(name="e", vocab_size=10, dim=16, optimizer=Sgd(learning_rate=0.1)),
    ]
    stacks = build_stacks(tables, [FeatureConfig(name="f", table="c")], 8)
    assert [(stack.name, [table.name for table in stack.tables]) for stack in stacks] == [
        ("dim16_adagrad", ["a", "c"]),
        ("dim1_adagrad", ["b"]),
        ("dim16_adagrad_2", ["d"]),
        ("dim16_sgd", ["e"]),
    ]
    assert stacks[0].offsets == (0, 16)
    assert [feature.name for feature in stacks[0].features] == ["f"]


@pytest.mark.parametrize(
    ("tables", "features", "message"),
    [
        (["a", "a"], ["a"], "two tables are named 'a'"),
        (["user"], ["usr"], "feature 'f0' looks up table 'usr'.*did you mean user"),
    ],
)
def test_names_are_checked(tables: list[str], features: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_stacks(
            [TableConfig(name=name, vocab_size=1, dim=1) for name in tables],
            [FeatureConfig(name=f"f{i}", table=name) for i, name in enumerate(features)],
            8,
        )


@pytest.mark.parametrize("field", ["vocab_size", "dim"])
def test_table_sizes_are_checked(field: str) -> None:
    with pytest.raises(ConfigError, match=f"table 't': {field} must be at least 1, got 0"):
        TableConfig(**{"name": "t", "vocab_size": 1, "dim": 1, field: 0})
