"""The planner's parts: expected batches against real ones, the chips' figures, the bound."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.errors import ConfigError
from monolith_jax.input import Batch
from monolith_jax.models import DLRMConfig
from monolith_jax.optimizers import Adagrad
from monolith_jax.planning import CHIPS, topology
from monolith_jax.planning.advice import advise
from monolith_jax.planning.chips import GIB, chip_of
from monolith_jax.planning.expected import distinct, expected_batch, expected_lookups
from monolith_jax.planning.plan import TableBytes, plans
from monolith_jax.planning.traffic import Traffic, bound_of
from monolith_jax.task import InputConfig, TaskConfig
from monolith_jax.training.program import Program

BATCH = 8192


def make_task(dim: int) -> TaskConfig:
    return TaskConfig(
        input=InputConfig(batch_size=BATCH),
        tables=tuple(
            TableConfig(name=name, vocab_size=rows, dim=dim, optimizer=Adagrad(learning_rate=0.1))
            for name, rows in (("big", 200_000), ("small", 50))
        ),
        features=(
            FeatureConfig(name="big", table="big", max_length=4),
            FeatureConfig(name="again", table="big", column="big", max_length=4),
            FeatureConfig(name="small", table="small"),
        ),
        dense=("x",),
        model=DLRMConfig(vectors=("big", "again", "small"), bottom=(dim,), top=(4,)),
    )


def columns(seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "big": random.integers(0, 200_000, (BATCH, 4)),
        "small": random.integers(0, 50, BATCH),
        "x": np.zeros(BATCH, np.float32),
        "label": np.zeros(BATCH, np.float32),
    }


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("dim", [16, 128])
def test_an_expected_batch_has_room_for_an_even_one(devices: int, dim: int) -> None:
    """Every array is there, and holds what a batch of evenly drawn ids needs, not much more."""
    task = make_task(dim)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    engine = XlaEngine(task.tables, task.features, batch_size=BATCH, mesh=mesh, form="lines")
    expected = expected_lookups(engine, BATCH)
    real = engine.prepare(columns(0))
    assert expected.keys() == real.keys()
    (want_all,), (have_all,) = expected.values(), real.values()
    for name in ("rows", "index", "send", "lines", "slot"):
        want, have = getattr(want_all, name), getattr(have_all, name)
        if have is None:
            assert want is None, name
            continue
        assert want.dtype == have.dtype
        assert have.size <= want.size <= 1.6 * have.size, name


def test_an_expected_batch_is_what_the_program_prepares() -> None:
    task = make_task(128)
    program = Program(task, jax.devices()[:8])
    expected = expected_batch(program)
    real = program.prepare(Batch(columns(0), np.ones(BATCH, np.float32)))
    assert expected.keys() == real.keys()
    for name in ("dense", "label", "weight"):
        assert expected[name].shape == real[name].shape
        assert expected[name].dtype == real[name].dtype
        assert expected[name].sharding == real[name].sharding


@pytest.mark.parametrize(("rows", "draws"), [(1000, 500), (1000, 5000), (7, 3), (1, 4)])
def test_distinct_rows_agree_with_drawing(rows: int, draws: int) -> None:
    random = np.random.default_rng(0)
    found = [len(np.unique(random.integers(0, rows, draws))) for _ in range(400)]
    np.testing.assert_allclose(distinct(rows, draws), np.mean(found), rtol=0.02)


def test_the_cut_of_a_v5e_pod_is_the_published_one() -> None:
    """Bisection bandwidth per pod: 1.6 TB/s, one way; 2 * 16 links cross the middle."""
    chip = CHIPS["v5e"]
    assert 2 * 16 * chip.link_rate == 1.6e12
    assert [chip.wraps(k) for k in (4, 8, 16)] == [False, False, True]
    assert [CHIPS["v5p"].wraps(k) for k in (2, 4, 8)] == [False, True, True]


def test_the_bound_is_its_formula() -> None:
    chip = CHIPS["v5e"]
    traffic = Traffic(819e6, exchange=0.0, ids=819e6, dense=0.0, sent=0.0, reduced=0.0, flops=197e9)
    bound = bound_of(traffic, chip, (16, 16), 65_536)
    np.testing.assert_allclose((bound.memory, bound.compute, bound.links), (2e-3, 1e-3, 0.0))
    assert bound.limit == "memory"
    np.testing.assert_allclose(bound.samples, 256 / 2e-3)
    sent = dataclasses.replace(traffic, sent=1e9)
    # Half of all that is sent by one half of the pod crosses the cut: 128 chips * 0.5 GB.
    np.testing.assert_allclose(bound_of(sent, chip, (16, 16), 65_536).links, 64e9 / 1.6e12)
    # Half a pod has no rings: one link a row crosses.
    np.testing.assert_allclose(bound_of(sent, chip, (16, 8), 65_536).links, 64e9 / 1.6e12)
    assert bound_of(sent, chip, (1, 1), 65_536).links == 0.0
    # The gradients' sum is bounded by what a chip can send, 200 GB/s, not by the cut.
    summed = dataclasses.replace(traffic, reduced=1e9)
    np.testing.assert_allclose(bound_of(summed, chip, (16, 16), 65_536).links, 1 / 200)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5q:4x4x4", "no chip 'v5q': did you mean"),
        ("v5p", "expected 3 sides, as in v5p:4x4x4"),
        ("v5e:4x4x4", "expected 2 sides, as in v5e:4x4"),
        ("v5e:4x", "expected 2 sides"),
        ("v5e:0x4", "expected 2 sides"),
    ],
)
def test_topologies_that_are_none(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chip_of(name)


def test_no_topology_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no topology: give one"):
        plans(make_task(16), " , ")


def test_without_the_compiler_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'monolith-jax\[tpu\]'"):
        topology.devices_of("v5e:2x2")


def test_advice_says_what_is_enough() -> None:
    task = make_task(128)
    tables = (
        TableBytes("big", 1000, 128, 10 * GIB, 10 * GIB),
        TableBytes("small", 10, 128, GIB, GIB),
    )
    chip = CHIPS["v5e"]
    lines = advise(task, tables, 23 * GIB, chip, 4, False)
    assert lines[0].startswith("7.0 GiB a chip too much")
    assert "shard over 8 chips: about 12.0 GiB a chip" in lines
    assert "rowwise_adagrad for all tables saves 10.9 GiB: enough" in lines
    assert "bfloat16 values of big, small save 5.5 GiB: 1.5 GiB short" in lines
    assert "shrink big from 1,000 to 650 rows: enough" in lines
    assert advise(task, tables, 10 * GIB, chip, 4, True) == ()
    full = advise(task, tables, 60 * GIB, chip, 4, False)
    assert any(line.startswith("more chips do not help") for line in full)
