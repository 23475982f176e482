"""The host's half: distinct rows, routing, and every id checked."""

import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.embedding._none import NONE
from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input import Ragged


def make(batch_size: int = 4, mesh: Any = None, shards: int = 8, **options: Any) -> XlaEngine:
    table = TableConfig(name="t", vocab_size=100, dim=4)
    feature = FeatureConfig(name="f", column="ids", table="t", **options)
    return XlaEngine([table], [feature], batch_size=batch_size, mesh=mesh, shards=shards)


def rows_of(engine: XlaEngine, column: Any) -> list[list[int]]:
    """Returns the ids that each example looks up, read back from the lookups."""
    (lookups,) = engine.prepare({"ids": column}).values()
    (stack,) = engine.stacks
    ids = {int(stack.layout.physical(i)): i for i in range(100)}
    held = [ids.get(int(row), -1) for row in lookups.rows]
    return [[held[i] for i in example if i != NONE] for example in lookups.index.tolist()]


@pytest.mark.parametrize("form", ["dense", "ragged"])
def test_ids_by_their_rules(form: str) -> None:
    dense = np.array([[5, 7], [99, -1], [-1, -9], [5, 5]])
    lengths = np.array([0, 2, 4, 6, 8])
    column = dense if form == "dense" else Ragged(dense.ravel(), lengths)
    assert rows_of(make(max_length=2), column) == [[5, 7], [99], [], [5, 5]]


def test_out_of_range_by_its_rule() -> None:
    column = np.array([5, 100, 250, -1])
    assert rows_of(make(out_of_range="modulo"), column) == [[5], [0], [50], []]
    assert rows_of(make(out_of_range="zero"), column) == [[5], [], [], []]
    message = "feature 'f'.*column 'ids'.*example 1.*id 100 is outside table 't' of vocab_size 100"
    with pytest.raises(DataError, match=message):
        make().prepare({"ids": column})


def test_too_long_by_its_rule() -> None:
    column = Ragged(np.arange(6), np.array([0, 1, 1, 5, 6]))
    with pytest.raises(
        DataError, match=r"feature 'f'.*example 2 of the batch: 4 ids, max_length is 3"
    ):
        make(max_length=3).prepare({"ids": column})
    found = rows_of(make(max_length=3, too_long="truncate"), column)
    assert found == [[0], [], [1, 2, 3], [5]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"idz": np.arange(4)}, "feature 'f': the data has no column 'ids': did you mean idz"),
        ({"ids": np.arange(3)}, "column 'ids' has 3 examples, expected 4"),
        ({"ids": np.arange(4.0)}, "column 'ids' is float64, ids must be int64"),
        ({"ids": np.zeros((4, 1, 1), int)}, "column 'ids' has shape"),
    ],
)
def test_columns_are_checked(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make().prepare(columns)


def test_shapes_are_a_function_of_the_batch_alone() -> None:
    rng = np.random.default_rng(0)
    table = TableConfig(name="t", vocab_size=1_000_000, dim=4)
    feature = FeatureConfig(name="ids", table="t")

    def fresh() -> XlaEngine:
        return XlaEngine([table], [feature], batch_size=16_384)

    wide = {"ids": rng.integers(0, 1_000_000, 16_384)}
    narrow = {"ids": rng.integers(0, 5_000, 16_384)}
    used = fresh()
    shapes = [jax.tree.map(np.shape, used.prepare(batch)) for batch in (wide, narrow, wide)]
    assert shapes[0] == shapes[2] != shapes[1]
    assert shapes[1] == jax.tree.map(np.shape, fresh().prepare(narrow))


def test_padding_rows_are_distinct_and_beyond_the_block(mesh: Any) -> None:
    engine = make(batch_size=16, mesh=mesh, max_length=3)
    ids = np.random.default_rng(0).integers(0, 100, (16, 3))
    (lookups,) = engine.prepare({"ids": ids}).values()
    block = engine.stacks[0].layout.physical_rows // 8
    seen = 0
    for rows in lookups.rows.reshape(8, -1):
        assert (np.diff(rows) > 0).all()
        seen += (rows < block).sum()
    assert seen == len(np.unique(ids))


def test_a_table_without_features_has_no_rows() -> None:
    tables = [TableConfig(name=name, vocab_size=100, dim=dim) for name, dim in (("t", 4), ("u", 8))]
    engine = XlaEngine(tables, [FeatureConfig(name="f", table="t")], batch_size=4, shards=8)
    lookups = engine.prepare({"f": np.arange(4)})
    (unused,) = (stack for stack in engine.stacks if stack.tables[0].name == "u")
    assert lookups[unused.name].rows.shape == (0,)
    assert lookups[unused.name].index.shape == (4, 0)


def test_threads_may_share_an_engine() -> None:
    engine = make(batch_size=512)
    batches = [{"ids": np.random.default_rng(i).integers(0, 100, 512)} for i in range(8)]
    want = [engine.prepare(batch) for batch in batches]
    got: dict[int, Any] = {}

    def work(i: int) -> None:
        got[i] = [engine.prepare(batches[i]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, lookups in enumerate(want):
        for again in got[i]:
            jax.tree.map(np.testing.assert_array_equal, again, lookups)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda mesh: make(batch_size=12, mesh=mesh), "batch_size 12 does not divide over 8"),
        (lambda mesh: make(batch_size=16, mesh=mesh, shards=12), "8 devices do not divide the 12"),
        (
            lambda mesh: XlaEngine([], [], batch_size=8, mesh=mesh, axis="dat"),
            "no mesh axis 'dat': did you mean data",
        ),
        (
            lambda mesh: XlaEngine(
                [TableConfig(name="huge", vocab_size=2**33, dim=1)], [], batch_size=8, mesh=mesh
            ),
            "tables huge: .* at most 2\\*\\*30 rows per device",
        ),
    ],
)
def test_engines_are_checked(build: Callable[[Any], Any], message: str, mesh: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        build(mesh)


def test_several_processes_need_a_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="2 processes need a mesh over all their devices"):
        make()
