"""More rows than the direct exchange holds: none is dropped, and traffic does not grow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.embedding import Constant, FeatureConfig, TableConfig, XlaEngine
from monolith_jax.embedding._ladder import capacity
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._relay import assign, sizes
from monolith_jax.optimizers import Sgd


@given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.integers(0, 400))
@settings(max_examples=60)
def test_every_row_has_a_relay_and_a_place_of_its_own(devices: int, seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    owner = np.minimum(rng.geometric(0.4, rows) - 1, devices - 1)
    asker = rng.integers(0, devices, rows)
    loads = np.concatenate([np.bincount(owner), np.bincount(asker)]) if rows else np.ones(1)
    least = max(1, -(-int(loads.max()) // devices))
    hops, relay, first, second = assign(owner, asker, devices, least)
    assert hops <= 2 * least
    for one, other, place in ((owner, relay, first), (relay, asker, second)):
        assert place.min(initial=0) >= 0
        assert place.max(initial=0) < hops
        assert len({*zip(one.tolist(), other.tolist(), place.tolist(), strict=True)}) == rows


def engine_and_ids(mesh: Any, hot: int) -> tuple[XlaEngine, np.ndarray]:
    """Returns an engine on eight devices, and ids of which device 3 owns far more than its share.

    Ids that are alike modulo the shards lie on one device.
    """
    table = TableConfig(
        name="t",
        vocab_size=80_000,
        dim=128,
        optimizer=Sgd(learning_rate=0.5),
        initializer=Constant(),
    )
    feature = FeatureConfig(name="f", table="t", max_length=4)
    engine = XlaEngine([table], [feature], batch_size=4096, mesh=mesh, shards=8)
    ids = np.random.default_rng(0).integers(0, 80_000, (4096, 4))
    ids[:512, :hot] = ids[:512, :hot] // 8 * 8 + 3  # the first device's examples
    return engine, ids


def test_hot_pairs_take_the_relay_and_sums_stay_exact(mesh: Any) -> None:
    engine, ids = engine_and_ids(mesh, hot=3)
    (lookups,) = engine.prepare({"f": ids}).values()
    assert lookups.relay is not None
    moved = lookups.send.shape[2] + 2 * lookups.relay.shape[2]
    pairs = [
        len(np.unique(part[(part % 8) == owner])) for part in np.split(ids, 8) for owner in range(8)
    ]
    assert moved < 0.8 * max(pairs)
    assert (lookups.send != NONE).sum() + (lookups.relay != NONE).sum() == sum(pairs)
    assert (lookups.relay != NONE).sum() == (lookups.forward != NONE).sum() > 0

    assert int(engine.overflowed({"t": lookups})) == (lookups.relay != NONE).sum()

    @jax.jit
    def step(state: Any, lookups: Any, weight: Any) -> Any:
        rows = engine.gather(state, lookups)
        found, back = jax.vjp(lambda r: engine.combine(r, lookups)["f"], rows)
        (gradients,) = back(jnp.broadcast_to(weight, found.shape))
        return engine.update(state, lookups, rows, gradients), found

    batch = {"f": ids}
    placed = engine.prepare(batch)
    placed = jax.device_put(placed, engine.lookups_sharding(placed))
    values = np.random.default_rng(1).integers(0, 1000, (80_000, 128)).astype(np.float32)
    state = engine.with_table(engine.init(jax.random.key(0)), "t", values)
    weight = np.arange(4096, dtype=np.float32)[:, None]
    state, found = step(state, placed, weight)
    np.testing.assert_array_equal(found, values[ids].sum(1))
    sums = np.zeros(80_000, np.float32)
    np.add.at(sums, ids.reshape(-1), np.repeat(weight[:, 0], 4))
    np.testing.assert_array_equal(engine.table_rows(state, "t"), values - 0.5 * sums[:, None])


def test_even_pairs_do_without(mesh: Any) -> None:
    engine, _ = engine_and_ids(mesh, hot=0)
    (lookups,) = engine.prepare({"f": np.arange(16_384).reshape(4096, 4)}).values()
    assert lookups.send.shape == (8, 8, 256)
    assert lookups.relay is None
    assert lookups.forward is None
    assert int(engine.overflowed({"t": lookups})) == 0


@pytest.mark.parametrize("unique", [20_000, 27_000])
def test_traffic_per_device_does_not_grow_with_the_devices(unique: int) -> None:
    """Rows that a device puts into the exchanges, for the same distinct ids of each device."""
    rng = np.random.default_rng(0)
    rows = {}
    for devices in (8, 64, 512):
        counts = rng.multinomial(unique, np.full(devices, 1 / devices), size=devices).T
        direct, hops = sizes(counts, least=max(8, 2048 // devices), most=unique)
        over = np.maximum(counts - direct, 0)
        owner, asker = (np.repeat(axis.ravel(), over.ravel()) for axis in np.indices(over.shape))
        if hops:
            hops = assign(owner, asker, devices, hops)[0]
        rows[devices] = devices * (direct + 2 * hops)
        assert rows[devices] <= devices * capacity(int(counts.max()), least=8, most=unique)
    assert max(rows.values()) <= 1.2 * min(rows.values()), rows
