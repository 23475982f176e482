"""The ragged exchange: what each pair of devices has and no more, and nothing is lost.

XLA:CPU has no ragged all-to-all. `emulated` does what its documentation says, from all devices'
arguments and without looking at anything else, so that the calling code is put to the test: which
rows leave, where they start, how many they are and where they arrive, forward and backward.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.embedding import Constant, FeatureConfig, TableConfig, XlaEngine, _ragged
from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._none import NONE
from monolith_jax.optimizers import Momentum, Sgd


def emulated(
    operand: Any,
    output: Any,
    input_offsets: Any,
    send_sizes: Any,
    output_offsets: Any,
    recv_sizes: Any,
    *,
    axis_name: str,
) -> Any:
    """`jax.lax.ragged_all_to_all`: device i writes operand[input_offsets[j]:][:send_sizes[j]] to

    output[output_offsets[j]:] of device j. What is undefined there gives NaN here: sizes that the
    two ends do not agree on, and rows beyond the operand or the output.
    """
    everyone = jax.tree.map(
        lambda x: jax.lax.all_gather(x, axis_name),
        (operand, input_offsets, send_sizes, output_offsets),
    )
    me = jax.lax.axis_index(axis_name)
    rows = jnp.arange(output.shape[0], dtype=jnp.int32)
    for j in range(input_offsets.shape[0]):
        theirs, starts, sizes, arrivals = (x[j] for x in everyone)
        start, size, arrival = starts[me], sizes[me], arrivals[me]
        wrong = (size != recv_sizes[j]) | (start + size > len(theirs))
        wrong |= arrival + size > output.shape[0]
        nth = rows - arrival
        moving = jnp.where(wrong, jnp.nan, theirs[jnp.clip(start + nth, 0, len(theirs) - 1)])
        output = jnp.where(((nth >= 0) & (nth < size))[:, None] | wrong, moving, output)
    return output


@pytest.fixture
def _emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.lax, "ragged_all_to_all", emulated)


@given(st.integers(1, 9), st.sampled_from([1, 4, 128]), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_every_row_leaves_once_and_arrives_at_a_place_of_its_own(
    devices: int, pack: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.choice([0.5, 20.0]), (devices, devices))
    owner, asker = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    nth = np.concatenate([np.arange(n) for n in counts.ravel()])
    most = max(1, int(counts.sum(0).max()))
    sent, room = _ragged.sizes(counts, pack, least=8, most=most)
    assert sent % pack == room % pack == 0
    mine = rng.random(devices) < 0.7
    parts = _ragged.parts(*_ragged.starts(counts, pack), mine)
    assert not parts[~mine].any()
    parts = _ragged.parts(*_ragged.starts(counts, pack), np.ones(devices, bool))
    # By the numbers that the devices are given, in lines: no two rows of a device share a place.
    leaves, lines, arrives, lies, back, started = np.moveaxis(parts, 1, 0)
    for device, start, size in ((owner, leaves, sent), (asker, arrives, room)):
        place = start[owner, asker] * pack + nth
        assert place.max(initial=0) < size
        assert len({*zip(device.tolist(), place.tolist(), strict=True)}) == len(nth)
    np.testing.assert_array_equal(lines * pack >= counts, True)
    np.testing.assert_array_equal(lies, arrives.T)
    np.testing.assert_array_equal(back, lines.T)
    np.testing.assert_array_equal(started, leaves.T)


def test_a_program_that_is_there_serves_smaller_batches() -> None:
    counts = np.full((4, 4), 600)
    assert _ragged.sizes(counts, 4, least=8, most=10_000, room=(4096, 2400)) == (4096, 2400)
    assert _ragged.sizes(counts, 4, least=8, most=10_000, room=(4096, 2396)) == (4096, 2432)


@pytest.mark.parametrize(
    ("exchange", "dim", "devices", "kind", "ragged"),
    [
        ("auto", 32, 512, "TPU v5", True),
        ("auto", 32, 64, "TPU v6 lite", True),
        ("auto", 128, 64, "TPU v6 lite", False),
        ("auto", 128, 256, "TPU v6 lite", True),
        ("auto", 32, 8, "TPU v5", False),
        ("auto", 1, 512, "TPU v5", False),
        ("auto", 32, 256, "TPU v5 lite", False),
        ("auto", 32, 512, "cpu", False),
        ("buckets", 32, 512, "TPU v5", False),
        ("ragged", 1, 8, "cpu", True),
        ("ragged", 32, 1, "TPU v5", False),
    ],
)
def test_who_takes_it(exchange: Any, dim: int, devices: int, kind: str, ragged: bool) -> None:
    layout = Layout(rows=1000, dim=dim, shards=1024)
    assert _ragged.is_ragged(exchange, layout, devices, kind) == ragged


RULES = {"momentum": Momentum(learning_rate=0.1, momentum=0.9)}


@pytest.mark.usefixtures("_emulated")
def test_the_same_bits_as_by_buckets(
    tables: Any, features: Any, batches: Any, step: Any, mesh: Any
) -> None:
    """Forward, backward and updates, of dims 16 and 5, by both exchanges."""
    ends = {}
    for exchange in ("buckets", "ragged"):
        engine = XlaEngine(
            tables(RULES), features(RULES), batch_size=64, shards=16, mesh=mesh, exchange=exchange
        )
        state, one = engine.init(jax.random.key(3)), step(engine)
        for batch in batches(3):
            lookups = engine.prepare(batch)
            assert all((x.parts is not None) == (exchange == "ragged") for x in lookups.values())
            lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
            state, loss = one(state, lookups, batch["item"].astype(np.float32) / 1000)
        ends[exchange] = jax.tree.map(np.asarray, (state, loss))
    jax.tree.map(np.testing.assert_array_equal, ends["ragged"], ends["buckets"])


@pytest.mark.usefixtures("_emulated")
@pytest.mark.parametrize(
    ("exchange", "sharding"), [("buckets", "div"), ("ragged", "mod"), ("ragged", "div")]
)
def test_no_id_is_dropped_where_one_owner_has_most(sharding: Any, exchange: Any, mesh: Any) -> None:
    """A block of neighbours, which `div` gives to one owner, or ids that `mod` does.

    By buckets what is too much for the hot pairs takes the relay and is counted; the ragged
    exchange has room for all of it. Whole numbers: sums are exact in any order.
    """
    table = TableConfig(
        name="t",
        vocab_size=40_000,
        dim=128,
        optimizer=Sgd(learning_rate=0.5),
        initializer=Constant(),
        sharding=sharding,
    )
    feature = FeatureConfig(name="f", table="t", max_length=4)
    engine = XlaEngine([table], [feature], batch_size=4096, mesh=mesh, shards=8, exchange=exchange)
    ids = np.random.default_rng(0).integers(0, 40_000, (4096, 4))
    hot = ids[:512, :3]  # three of four ids of the first device's examples
    ids[:512, :3] = hot // 8 * 8 + 3 if sharding == "mod" else 15_000 + hot // 8
    lookups = engine.prepare({"f": ids})
    counted = int(engine.overflowed(lookups))
    assert counted > 0 if exchange == "buckets" else counted == 0
    (asked,) = lookups.values()
    sent = sum((x != NONE).sum() for x in (asked.send, asked.relay) if x is not None)
    assert sent == sum(len(np.unique(part)) for part in np.split(ids, 8))

    @jax.jit
    def step(state: Any, lookups: Any, weight: Any) -> Any:
        rows = engine.gather(state, lookups)
        found, back = jax.vjp(lambda r: engine.combine(r, lookups)["f"], rows)
        (gradients,) = back(jnp.broadcast_to(weight, found.shape))
        return engine.update(state, lookups, rows, gradients), found

    values = np.random.default_rng(1).integers(0, 1000, (40_000, 128)).astype(np.float32)
    state = engine.with_table(engine.init(jax.random.key(0)), "t", values)
    weight = np.arange(4096, dtype=np.float32)[:, None]
    placed = jax.device_put(lookups, engine.lookups_sharding(lookups))
    state, found = step(state, placed, weight)
    np.testing.assert_array_equal(found, values[ids].sum(1))
    sums = np.zeros(40_000, np.float32)
    np.add.at(sums, ids.reshape(-1), np.repeat(weight[:, 0], 4))
    np.testing.assert_array_equal(engine.table_rows(state, "t"), values - 0.5 * sums[:, None])
