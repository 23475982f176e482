"""Batches padded to a program that is there already: its shapes, and the same numbers."""

from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.embedding._room import rooms_of
from monolith_jax.optimizers import Adagrad

ROWS, BATCH = 80_000, 4096


def engine_of(devices: int, form: Any = "rows", exchange: Any = "auto") -> XlaEngine:
    table = TableConfig(name="t", vocab_size=ROWS, dim=16, optimizer=Adagrad(learning_rate=0.1))
    feature = FeatureConfig(name="f", table="t", max_length=4)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    return XlaEngine(
        [table],
        [feature],
        batch_size=BATCH,
        mesh=mesh,
        shards=8,
        form=form,
        exchange=exchange,
    )


def shapes(lookups: Any) -> Any:
    return jax.tree.map(lambda x: x.shape, lookups)


def even(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, ROWS, (BATCH, 4))


def hot(seed: int) -> np.ndarray:
    """Ids of which one device owns far more than its share, so that they take the relay."""
    ids = even(seed)
    ids[:512, :3] = ids[:512, :3] // 8 * 8 + 3
    return ids


@pytest.mark.parametrize("ids", [even, hot])
@pytest.mark.parametrize(("devices", "form"), [(1, "rows"), (1, "lines"), (8, "lines")])
def test_what_fits_gets_the_shapes_that_are_there(devices: int, form: Any, ids: Any) -> None:
    engine = engine_of(devices, form)
    large = engine.prepare({"f": ids(0)})
    small = {"f": ids(1) % 5000}
    assert shapes(engine.prepare(small)) != shapes(large)
    engine.make_room(rooms_of(large, devices))
    assert shapes(engine.prepare(small)) == shapes(large)


def test_the_ragged_exchange_has_room_too() -> None:
    engine = engine_of(8, exchange="ragged")
    large = engine.prepare({"f": even(0)})
    engine.make_room(rooms_of(large, 8))
    small = engine.prepare({"f": even(1) % 5000})
    # What a device has room to receive is no array; it is a part of the tree.
    assert jax.tree.structure(small) == jax.tree.structure(large)
    assert shapes(small) == shapes(large)


@pytest.mark.parametrize("devices", [1, 8])
def test_what_does_not_fit_gets_shapes_of_its_own(devices: int) -> None:
    engine = engine_of(devices)
    own = engine.prepare({"f": even(0)})
    engine.make_room(rooms_of(engine.prepare({"f": even(1) % 5000}), devices))
    assert shapes(engine.prepare({"f": even(0)})) == shapes(own)


@pytest.mark.parametrize("ids", [even, hot])
def test_padding_changes_sums_in_their_last_bits_at_most(ids: Any) -> None:
    plain, roomy = engine_of(8), engine_of(8)
    roomy.make_room(rooms_of(plain.prepare({"f": ids(0)}), 8))
    batch = {"f": ids(1) % 9000}
    assert shapes(plain.prepare(batch)) != shapes(roomy.prepare(batch))
    found = []
    for engine in (plain, roomy):
        lookups = engine.prepare(batch)
        lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
        state = engine.init(jax.random.key(0))

        def step(state: Any, lookups: Any, engine: XlaEngine = engine) -> Any:
            rows = engine.gather(state, lookups)
            vectors, back = jax.vjp(lambda r: engine.combine(r, lookups)["f"], rows)
            (gradients,) = back(vectors)
            return engine.update(state, lookups, rows, gradients), vectors

        state, vectors = jax.jit(step)(state, lookups)
        found.append((np.asarray(vectors), engine.table_rows(state, "t")))
    (vectors, table), (roomy_vectors, roomy_table) = found
    np.testing.assert_array_equal(roomy_vectors, vectors)
    # Another program adds the gradients of a row in another order.
    np.testing.assert_allclose(roomy_table, table, rtol=1e-4, atol=1e-7)
