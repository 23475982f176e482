"""Where rows live: the xla engine's blocks, seen as rows; converted bit for bit, on each device."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding.sparsecore.layout import CoreLayout

# The last: more SparseCores than virtual shards, whose parts do not divide evenly.
SHAPES = [(100, 1, 2, 2), (1000, 12, 4, 2), (97, 40, 1, 4), (500, 130, 8, 4), (50, 128, 8, 4)]


@pytest.mark.parametrize(("rows", "dim", "devices", "cores"), SHAPES)
def test_every_row_has_a_place_of_its_own(rows: int, dim: int, devices: int, cores: int) -> None:
    lines = Layout(rows=rows, dim=dim, shards=8)
    layout = CoreLayout(lines, devices, cores)
    physical = lines.physical(np.arange(rows))
    ids = layout.id_of(physical)
    core, row = ids % layout.total_cores, ids // layout.total_cores
    assert len(np.unique(ids)) == rows
    assert row.max() < layout.rows_per_core
    assert layout.rows_per_core % 8 == 0
    assert np.array_equal(layout.physical_of(core, row), physical)
    assert np.array_equal(core // cores, physical // (lines.physical_rows // devices))


@pytest.mark.parametrize(("rows", "dim", "devices", "cores"), SHAPES)
def test_conversion_moves_each_row_to_its_place_and_back(
    rows: int, dim: int, devices: int, cores: int
) -> None:
    lines = Layout(rows=rows, dim=dim, shards=8)
    layout = CoreLayout(lines, devices, cores)
    rng = np.random.default_rng(0)
    value = rng.integers(0, 2**32, (lines.physical_rows, lines.width), np.uint32)
    value[:, dim:] = 0
    blocks = np.split(value.view(np.float32).reshape(lines.shape), devices)
    there = [np.asarray(layout.from_lines(jnp.asarray(block), 0.0)) for block in blocks]
    whole = np.concatenate(there)
    assert whole.shape == layout.shape
    physical = lines.physical(np.arange(rows))
    ids = layout.id_of(physical)
    at = ids % layout.total_cores * layout.rows_per_core + ids // layout.total_cores
    assert np.array_equal(whole[at, :dim].view(np.uint32), value[physical, :dim])
    assert not whole[:, dim:].view(np.uint32).any()
    back = [np.asarray(layout.to_lines(jnp.asarray(block), 0.0)) for block in there]
    for block, again in zip(blocks, back, strict=True):
        assert np.array_equal(block.view(np.uint32), again.view(np.uint32))


def test_padding_holds_what_it_is_told() -> None:
    layout = CoreLayout(Layout(rows=97, dim=12, shards=8), devices=1, cores=4)
    block = jnp.zeros(layout.lines.shape)
    there = np.asarray(layout.from_lines(block, 0.5))
    assert set(np.unique(there[:, 12:])) == {0.5}
    again = np.asarray(layout.to_lines(jnp.asarray(there), 0.25))
    lanes = again.reshape(-1, layout.lines.width)
    assert not lanes[:, :12].any()
    assert set(np.unique(lanes[:, 12:])) == {0.25}


def test_rows_of_128_need_no_conversion() -> None:
    """As DLRM at MLPerf's size: a checkpoint's array and the chip's are one and the same."""
    for devices, cores in itertools.product((1, 4, 64), (2, 4)):
        layout = CoreLayout(Layout(rows=100_000, dim=128, shards=1024), devices, cores)
        assert layout.shape == layout.lines.shape
        block = jnp.arange(layout.shape[0] // devices * 128, dtype=jnp.int32).reshape(-1, 128)
        assert np.array_equal(layout.from_lines(block, 0), block)
