"""What a plan assumes of a batch on SparseCores, held against batches that are prepared."""

from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.embedding.sparsecore import SparseCoreEngine, SparseCores, library_missing
from monolith_jax.planning.expected import expected_lookups
from monolith_jax.planning.traffic_cores import core_traffic

pytestmark = pytest.mark.skipif(
    bool(library_missing()), reason=library_missing() or "it is installed"
)

BATCH, DEVICES = 2048, 4


def _engine(sizes: tuple[int, ...], lengths: tuple[int, ...]) -> Any:
    mesh = Mesh(np.array(jax.devices()[:DEVICES]), ("data",))
    tables = [TableConfig(name=f"t{i}", vocab_size=size, dim=20) for i, size in enumerate(sizes)]
    features = [
        FeatureConfig(name=f"f{i}", table=f"t{i}", max_length=length, sequence=i == 1)
        for i, length in enumerate(lengths)
    ]
    return SparseCoreEngine(
        tables, features, batch_size=BATCH, mesh=mesh, emulated=SparseCores(4, 8192)
    )


@pytest.mark.parametrize(
    ("sizes", "lengths"), [((100_000, 5_000), (1, 4)), ((3, 100_000, 40), (2, 5, 1))]
)
def test_an_expected_batch_has_room_for_an_even_one(
    sizes: tuple[int, ...], lengths: tuple[int, ...]
) -> None:
    engine = _engine(sizes, lengths)
    ((name, expected),) = expected_lookups(engine, BATCH).items()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        columns = {
            f"f{i}": rng.integers(0, size, (BATCH, length))
            for i, (size, length) in enumerate(zip(sizes, lengths, strict=True))
        }
        found = engine.prepare(columns)[name]
        assert found.max_ids <= expected.max_ids <= 4 * found.max_ids
        assert found.max_rows <= expected.max_rows <= 4 * found.max_rows
        assert found.rows.size <= expected.rows.size <= 2 * found.rows.size
        assert {n: m.shape for n, m in found.masks.items()} == {
            n: m.shape for n, m in expected.masks.items()
        }
        assert found.pointers.shape == expected.pointers.shape


def test_traffic_is_counted_by_rows() -> None:
    """One table as large as can be: every id asks for a row of its own."""
    engine = _engine((10_000_000,), (1,))
    (stack,) = engine.stacks
    ids, row = BATCH / DEVICES, 4 * 24  # lanes: 20, to a multiple of 8
    rows, exchange, each, sent = core_traffic(engine, stack)
    assert rows == pytest.approx((2 * 2 + 1) * ids * row, rel=1e-3)
    assert exchange == pytest.approx(4 * ids * row, rel=1e-3)
    assert each == 3 * ids * row
    assert sent == pytest.approx(2 * ids * row * 3 / 4, rel=1e-3)
