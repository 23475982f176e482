"""The library's buffers, decoded: every id in its place, with its weight; limits from the data."""

from typing import Any

import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.embedding._ids import id_weights, physical_rows
from monolith_jax.embedding.sparsecore import Limits, SparseCoreEngine, SparseCores
from monolith_jax.embedding.sparsecore.limits import rung
from monolith_jax.errors import DataError

pytestmark = pytest.mark.usefixtures("library")


def decoded(engine: Any, stack: Any, lookups: Any) -> dict[tuple[int, int], float]:
    """Returns {(physical row, sample): gain} of the buffers, by following the pointers."""
    layout, samples = engine.layouts[stack.name], engine.samples[stack.name]
    cores = layout.total_cores
    pointers = lookups.pointers.reshape(cores, -1)
    rows, sample, gains = (
        a.reshape(cores, -1) for a in (lookups.rows, lookups.samples, lookups.gains)
    )
    found: dict[tuple[int, int], float] = {}
    for core in range(cores):
        start = 0
        for owner in range(cores):
            for k in range(start, pointers[core, owner]):
                row = int(layout.physical_of(np.int64(owner), np.int64(rows[core, k])))
                key = row, int(sample[core, k]) + core * samples.per_core
                assert key not in found
                found[key] = float(gains[core, k])
            start = -(-pointers[core, owner] // 8) * 8
    return found


def wanted(stack: Any, columns: Any, numbers: np.ndarray, batch: int) -> dict[Any, float]:
    """Returns the same from the ids, written out example by example."""
    rows = physical_rows(stack, columns, batch)
    weights = id_weights(stack, columns, batch)
    weights = np.ones(rows.shape) if weights is None else weights.astype(np.float64)
    weights = np.where(rows >= 0, weights, 0.0)
    found: dict[Any, float] = {}
    for example in range(batch):
        start = 0
        for part in stack.features:
            mine = slice(start, start + part.max_length)
            start += part.max_length
            w = weights[example, mine]
            if not part.feature.sequence and w.any():
                kind = part.feature.combiner
                w = w / {"sum": 1.0, "mean": w.sum(), "sqrtn": np.sqrt((w**2).sum())}[kind]
            for row, sample, gain in zip(
                rows[example, mine], numbers[example, mine], w, strict=True
            ):
                if row >= 0:
                    key = int(row), int(sample)
                    found[key] = found.get(key, 0.0) + gain
    return found


def test_buffers_hold_every_id_with_its_weight(engines: Any, batch: Any) -> None:
    _, engine = engines
    columns = batch(0)
    prepared = engine.prepare(columns)
    for stack in engine.stacks:
        found = decoded(engine, stack, prepared[stack.name])
        numbers = engine.samples[stack.name].numbers()
        want = wanted(stack, columns, numbers, engine.batch_size)
        assert found.keys() == want.keys()
        np.testing.assert_allclose(
            [found[key] for key in want], list(want.values()), rtol=1e-6, atol=0
        )


def test_a_batch_is_prepared_the_same_twice(engines: Any, batch: Any) -> None:
    """Between the shares nothing is left undefined, as the library leaves it."""
    _, engine = engines
    one, two = engine.prepare(batch(1)), engine.prepare(batch(1))
    for name, lookups in one.items():
        for field in ("pointers", "rows", "samples", "gains"):
            a, b = getattr(lookups, field), getattr(two[name], field)
            assert np.array_equal(a.view(np.int32), b.view(np.int32))


def test_a_batch_without_ids(engines: Any, batch: Any) -> None:
    _, engine = engines
    columns = batch(0)
    columns["one"] = np.full(engine.batch_size, -1)
    columns["many"].values[:] = -1
    prepared = engine.prepare(columns)
    for stack in engine.stacks:
        found = decoded(engine, stack, prepared[stack.name])
        # `negative="first"` alone makes ids of these.
        assert {row for row, _ in found} == {0}
        assert len(found) == engine.batch_size


def _one_table(rows: int, **kwargs: Any) -> SparseCoreEngine:
    return SparseCoreEngine(
        [TableConfig(name="user", vocab_size=100_000, dim=8)],
        [FeatureConfig(name="user", table="user")],
        batch_size=4096,
        shards=8,
        emulated=SparseCores(2, rows),
        **kwargs,
    )


def test_limits_are_the_batchs_own() -> None:
    engine = _one_table(4096)
    even = engine.prepare({"user": np.arange(4096)})["dim8_adagrad"]
    hot = engine.prepare({"user": np.zeros(4096, np.int64)})["dim8_adagrad"]
    assert even.max_rows <= even.max_ids <= 2048
    assert hot.max_ids == rung(2048)
    assert hot.max_rows == rung(1)
    again = engine.prepare({"user": np.arange(4096)})["dim8_adagrad"]
    assert (again.max_ids, again.max_rows) == (even.max_ids, even.max_rows)


def test_more_rows_than_a_sparsecore_holds_stop_the_run_with_their_number() -> None:
    engine = _one_table(512)
    ids = np.arange(4096)
    with pytest.raises(DataError, match=r"tables 'user': .* distinct rows .*, 512 is the most"):
        engine.prepare({"user": ids})
    demand = _one_table(4096).prepare({"user": ids})["dim8_adagrad"]
    ends = demand.pointers.reshape(2, -1)[:, :2]
    counts = np.stack([ends[:, 0], ends[:, 1] - (ends[:, 0] + 7) // 8 * 8])
    beyond = int(np.maximum(counts - 512, 0).sum())
    with pytest.raises(DataError, match=f"{beyond} over all would be dropped"):
        engine.prepare({"user": ids})


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(ids=64, rows=64, buffer=8192), "ids in one batch, 64 is the most"),
        (Limits(ids=4096, rows=64, buffer=8192), "distinct rows in one batch, 64 is the most"),
        (Limits(ids=4096, rows=4096, buffer=1024), "its buffer has 1024; .* would be dropped"),
    ],
)
def test_a_batch_beyond_given_limits_is_an_error(limits: Limits, said: str) -> None:
    engine = _one_table(4096, limits={"dim8_adagrad": limits})
    with pytest.raises(DataError, match=said):
        engine.prepare({"user": np.arange(4096)})
    small = engine.prepare({"user": np.where(np.arange(4096) < 64, np.arange(4096), -1)})
    assert small["dim8_adagrad"].max_ids == limits.ids
    assert small["dim8_adagrad"].rows.size == 2 * limits.buffer


def test_ids_are_checked_as_by_the_xla_engine(engines: Any, batch: Any) -> None:
    """The library takes an id of -1 for a row, and one beyond the table too."""
    engine = _one_table(4096)
    with pytest.raises(DataError, match="id 100000 is outside table 'user'"):
        engine.prepare({"user": np.full(4096, 100_000)})


def test_what_the_library_drops_is_noticed(engines: Any, monkeypatch: Any) -> None:
    """Told of too small a buffer, the library drops ids, even where it is told not to."""
    from monolith_jax.embedding.sparsecore import prepare

    real = prepare.preprocess
    monkeypatch.setattr(prepare, "preprocess", lambda *args: real(*args[:-1], args[-1] // 16 * 8))
    with pytest.raises(DataError, match=r"of 4096 ids of a batch, jax-tpu-embedding dropped \d+"):
        _one_table(4096).prepare({"user": np.arange(4096)})
