"""bfloat16 tables: rounding that is unbiased, the same again, and the same on any mesh."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform, XlaEngine
from monolith_jax.embedding._rounding import random_bits, step_key, stochastic_round
from monolith_jax.optimizers import Adagrad, Sgd

KEYS, ROWS, DIM = 400, 64, 16


@pytest.fixture(scope="module")
def bits() -> Any:
    """The bits of many steps, uint32 [steps, rows, elements]."""
    row, element = jnp.arange(ROWS)[:, None], jnp.arange(DIM)[None]
    draw = jax.jit(jax.vmap(lambda step: random_bits(step_key(3, 1, step), row, element)))
    return np.asarray(draw(jnp.arange(KEYS)))


def test_rounding_is_unbiased(bits: Any) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(ROWS, DIM)) * 10.0 ** rng.integers(-6, 7, (ROWS, DIM))).astype(np.float32)
    rounded = np.asarray(
        jax.vmap(stochastic_round, in_axes=(None, 0))(jnp.asarray(x), bits).astype(jnp.float32),
        np.float64,
    )
    integers = x.view(np.uint32)
    low = (integers & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)
    high = ((integers & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32)
    gap = high.astype(np.float64) - low
    assert ((rounded == low) | (rounded == high)).all()
    share = (x - low) / gap
    found = ((rounded - low) / gap).mean(axis=0)
    deviation = np.sqrt(share * (1 - share) / KEYS)
    z = (found - share) / np.maximum(deviation, 0.5 / KEYS)
    # Each element's share over the keys is that of independent draws, and so is their spread.
    assert np.abs(z).max() < 5.0
    assert 0.9 < np.square(z).mean() < 1.1
    assert abs(z.mean()) < 4.0 / np.sqrt(z.size)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_draw_independently(bits: Any, axis: int) -> None:
    """No correlation from one step, row or element to the next, in the part that rounds."""
    u = (bits >> 16) / 65536 - 0.5
    a, b = np.split(np.moveaxis(u, axis, 0), [u.shape[axis] - 1])[0], np.moveaxis(u, axis, 0)[1:]
    correlation = (a * b).mean() * 12
    assert abs(correlation) < 4.0 / np.sqrt(a.size)
    assert abs(u.mean() * np.sqrt(12 * u.size)) < 4.0
    counts = np.bincount((bits >> 24).ravel(), minlength=256)
    expected = bits.size / 256
    chi = (np.square(counts - expected) / expected).sum()
    assert abs(chi - 255) < 5 * np.sqrt(2 * 255)


def test_bits_depend_on_seed_stack_and_step() -> None:
    keys = {
        tuple(np.asarray(step_key(s, t, jnp.int32(k))).tolist()) for s, t, k in np.ndindex(3, 3, 3)
    }
    assert len(keys) == 27


def test_what_bfloat16_holds_and_what_is_not_finite_stays() -> None:
    x = jnp.asarray([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan], jnp.float32)
    got = np.asarray(stochastic_round(x, jnp.full(7, 0xFFFFFFFF, jnp.uint32)).astype(jnp.float32))
    np.testing.assert_array_equal(got, x)
    assert np.signbit(got[1])


def make(rule: Any, mesh: Any = None, form: Any = "auto", seed: int = 0) -> XlaEngine:
    table = TableConfig(
        name="t",
        vocab_size=100,
        dim=10,
        optimizer=rule,
        dtype="bfloat16",
        initializer=Uniform(scale=0.5),
    )
    feature = FeatureConfig(name="f", table="t", max_length=3)
    return XlaEngine([table], [feature], batch_size=32, mesh=mesh, shards=8, form=form, seed=seed)


def run(engine: XlaEngine, steps: range = range(4), state: Any = None) -> Any:
    """Returns the state after some steps; the gradients are small integers over 64, exact sums."""
    rng = np.random.default_rng(0)
    batches = [rng.integers(-1, 100, (32, 3)) for _ in range(8)]
    weight = np.arange(32, dtype=np.float32)[:, None] / 64

    @jax.jit
    def step(state: Any, lookups: Any) -> Any:
        rows = engine.gather(state, lookups)
        gradients = jax.grad(lambda r: (engine.combine(r, lookups)["f"] * weight).sum())(rows)
        return engine.update(state, lookups, rows, gradients)

    state = engine.init(jax.random.key(0)) if state is None else state
    for k in steps:
        lookups = engine.prepare({"f": batches[k]})
        state = step(state, jax.device_put(lookups, engine.lookups_sharding(lookups)))
    return state


def same(a: XlaEngine, x: Any, b: XlaEngine, y: Any) -> bool:
    return bool((a.table_rows(x, "t") == b.table_rows(y, "t")).all())


def test_a_stop_between_steps_changes_no_bit() -> None:
    rule = Adagrad(learning_rate=0.1)
    whole = run(make(rule))
    engine = make(rule)
    halfway = jax.tree.map(np.asarray, run(engine, range(2)))
    again = jax.device_put(halfway, engine.state_sharding())
    assert same(make(rule), whole, engine, run(make(rule), range(2, 4), again))
    assert not same(engine, whole, engine, run(make(rule, seed=1)))


@pytest.mark.parametrize("form", ["rows", "lines"])
def test_eight_devices_round_alike(form: Any, mesh: Any) -> None:
    rule = Sgd(learning_rate=1.0 / 128)
    one, eight = make(rule, form="rows"), make(rule, mesh, form)
    assert same(one, run(one), eight, run(eight))


def test_every_rule_follows_float32(rule_name: str, rules: Any) -> None:
    """One step from equal rows: each element is one of the neighbours of float32's."""
    rule = rules[rule_name]
    engine = make(rule)
    (table,) = engine.stacks[0].tables
    wide = XlaEngine(
        [table.replace(dtype="float32")],
        [FeatureConfig(name="f", table="t", max_length=3)],
        batch_size=32,
        shards=8,
    )
    start = engine.table_rows(engine.init(jax.random.key(0)), "t")
    got = engine.table_rows(run(engine, range(1)), "t")
    state = wide.with_table(wide.init(jax.random.key(0)), "t", start)
    want = wide.table_rows(run(wide, range(1), state), "t")
    assert (want != start).mean() > 0.3
    np.testing.assert_allclose(got, want, rtol=2.0**-7, atol=1e-7)
    slots, wide_slots = (
        e.table_slots(run(e, range(1), s), "t") for e, s in ((engine, None), (wide, state))
    )
    for name, slot in wide_slots.items():
        assert slots[name].dtype == np.float32
        np.testing.assert_allclose(slots[name], slot, rtol=1e-5, atol=1e-6)
    untouched = want == start
    np.testing.assert_array_equal(got[untouched], start[untouched])


def test_values_take_half_the_memory_and_slots_do_not_change() -> None:
    engine = make(Adagrad(learning_rate=0.1))
    (stack,) = engine.abstract_state()["stacks"].values()
    assert stack["value"].dtype == jnp.bfloat16
    assert stack["slots"]["accumulator"].dtype == jnp.float32
    assert engine.stacks[0].name == "dim10_adagrad_bfloat16"


def test_small_updates_are_not_lost_on_average() -> None:
    """Rounding to nearest would never leave 1; steps of 1/2048 sum up to what they should."""
    table = TableConfig(
        name="t", vocab_size=512, dim=8, optimizer=Sgd(learning_rate=1.0 / 2048), dtype="bfloat16"
    )
    engine = XlaEngine([table], [FeatureConfig(name="f", table="t")], batch_size=512)
    state = engine.with_table(engine.init(jax.random.key(0)), "t", np.ones((512, 8), np.float32))
    lookups = engine.prepare({"f": np.arange(512)})

    @jax.jit
    def step(state: Any) -> Any:
        rows = engine.gather(state, lookups)
        gradients = jax.grad(lambda r: -engine.combine(r, lookups)["f"].sum())(rows)
        return engine.update(state, lookups, rows, gradients)

    for _ in range(256):
        state = step(state)
    moved = engine.table_rows(state, "t") - 1.0
    assert abs(moved.mean() - 0.125) < 4 * moved.std() / np.sqrt(moved.size)
    assert moved.std() > 0.001


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="its XLA:CPU has no bfloat16 scatter")
def test_no_copy_of_a_table() -> None:
    table = TableConfig(name="t", vocab_size=1_000_000, dim=16, dtype="bfloat16")
    engine = XlaEngine([table], [FeatureConfig(name="f", table="t")], batch_size=64)
    lookups = engine.prepare({"f": np.arange(64)})

    def step(state: Any) -> Any:
        rows = engine.gather(state, lookups)
        gradients = jax.grad(lambda r: engine.combine(r, lookups)["f"].sum())(rows)
        return engine.update(state, lookups, rows, gradients)

    compiled = jax.jit(step, donate_argnums=0).lower(engine.abstract_state()).compile()
    memory: Any = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 1_000_000
    assert memory.alias_size_in_bytes > 1_000_000 * 16 * (2 + 4)
