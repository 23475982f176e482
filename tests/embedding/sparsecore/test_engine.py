"""The engine with emulated operations, on CPU, against the xla engine: vectors, updates, states."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.errors import ConfigError

STEPS = 3


def stepped(engine: Any) -> Any:
    """Returns (state, lookups, targets) -> (state, vectors); every vector is part of the loss."""

    def step(state: Any, lookups: Any, targets: Any) -> Any:
        rows = engine.gather(state, lookups)

        def loss(rows: Any) -> Any:
            vectors = engine.combine(rows, lookups)
            parts = [jnp.sum(jnp.sin(vectors[name] * t)) for name, t in targets.items()]
            return sum(parts, jnp.float32(0.0)), vectors

        (_, vectors), gradients = jax.value_and_grad(loss, has_aux=True)(rows)
        return engine.update(state, lookups, rows, gradients), vectors

    return jax.jit(step)


@pytest.fixture(scope="module")
def runs(engines: Any, states: Any, batch: Any) -> Any:
    """Both engines' states after three steps on the same batches, and all vectors on the way."""
    found = []
    for engine, state in zip(engines, states, strict=True):
        step, seen = stepped(engine), []
        for k in range(STEPS):
            lookups = engine.prepare(batch(k))
            lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
            rng = np.random.default_rng(k)
            targets = {
                name: jnp.asarray(rng.normal(size=x.shape).astype(np.float32))
                for name, x in engine.vectors(engine.batch_size).items()
                if not name.endswith("/mask")
            }
            state, vectors = step(state, lookups, targets)
            seen.append(vectors)
        found.append((state, seen))
    return found


def test_the_first_values_are_the_xla_engines(engines: Any, states: Any) -> None:
    _, cores = engines
    ours = cores.to_saved(states[1])
    for a, b in zip(jax.tree.leaves(states[0]), jax.tree.leaves(ours), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_vectors_are_the_xla_engines(runs: Any) -> None:
    (_, theirs), (_, ours) = runs
    assert list(ours[0]) == list(theirs[0])
    for name, vector in theirs[0].items():
        assert ours[0][name].dtype == vector.dtype
        np.testing.assert_allclose(ours[0][name], vector, rtol=1e-6, atol=1e-6, err_msg=name)
    for k in range(1, STEPS):
        for name, vector in theirs[k].items():
            np.testing.assert_allclose(ours[k][name], vector, rtol=2e-5, atol=1e-5, err_msg=name)


def test_updates_are_the_xla_engines(engines: Any, runs: Any, tables: Any) -> None:
    """Every rule: the rows and slots of the batch move alike, all others not at all."""
    xla, cores = engines
    (theirs, _), (ours, _) = runs
    assert int(ours["step"]) == int(theirs["step"]) == STEPS
    for table in tables:
        want, got = xla.table_rows(theirs, table.name), cores.table_rows(ours, table.name)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5, err_msg=table.name)
        slots = xla.table_slots(theirs, table.name)
        for name, slot in cores.table_slots(ours, table.name).items():
            np.testing.assert_allclose(slot, slots[name], rtol=2e-5, atol=2e-5, err_msg=name)
    for stack in cores.stacks:
        a, b = (s["stacks"][stack.name]["scalars"] for s in (theirs, ours))
        assert {n: float(x) for n, x in a.items()} == {n: float(x) for n, x in b.items()}


def test_states_convert_both_ways_bit_for_bit(engines: Any, runs: Any, tables: Any) -> None:
    """What each engine trained, as the other has it: the same bits in every row and slot."""
    xla, cores = engines
    (theirs, _), (ours, _) = runs
    there = cores.to_saved(cores.from_saved(theirs))
    back = cores.to_saved(ours)
    again = cores.from_saved(back)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(cores.to_saved(again)), strict=True):
        assert _bits(a) == _bits(b)
    for name, layout in cores.layouts.items():
        stack = ours["stacks"][name]
        ids = layout.id_of(np.unique(layout.lines.physical(np.arange(layout.lines.rows))))
        at = ids % layout.total_cores * layout.rows_per_core + ids // layout.total_cores
        for a, b in zip(
            jax.tree.leaves(stack), jax.tree.leaves(again["stacks"][name]), strict=True
        ):
            assert a.ndim < 2 or _bits(np.asarray(a)[at, : layout.lines.dim]) == _bits(
                np.asarray(b)[at, : layout.lines.dim]
            )
    for table in tables:
        assert _bits(xla.table_rows(theirs, table.name)) == _bits(xla.table_rows(there, table.name))
        old, new = (xla.table_slots(state, table.name) for state in (theirs, there))
        assert {name: _bits(x) for name, x in old.items()} == {
            name: _bits(x) for name, x in new.items()
        }


def _bits(array: Any) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def test_abstract_state_is_the_states(engines: Any, states: Any) -> None:
    _, cores = engines
    for want, have in zip(
        jax.tree.leaves(cores.abstract_state()), jax.tree.leaves(states[1]), strict=True
    ):
        assert (want.shape, want.dtype) == (have.shape, have.dtype)
        assert have.sharding.is_equivalent_to(want.sharding, have.ndim)


def test_rows_can_be_replaced(engines: Any, states: Any) -> None:
    _, cores = engines
    name = "adagrad_50"
    new = np.arange(24, dtype=np.float32).reshape(2, 12)
    state = cores.with_table(states[1], name, new, {"accumulator": new + 1.0}, start=3)
    assert np.array_equal(cores.table_rows(state, name, 3, 5), new)
    assert np.array_equal(cores.table_slots(state, name, 3, 5)["accumulator"], new + 1.0)
    assert np.array_equal(cores.table_rows(state, name, 5), cores.table_rows(states[1], name, 5))


def test_gradients_of_rows_cannot_be_measured(engines: Any) -> None:
    _, cores = engines
    with pytest.raises(ConfigError, match="cannot be measured or clipped"):
        cores.gradient_squares({}, {})
