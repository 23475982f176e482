"""Updates in one go, on CPUs, change rows as XLA's own loops do."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.embedding._cpu import updating
from monolith_jax.embedding._cpu.kernels import BLOCK
from monolith_jax.optimizers import (
    Adagrad,
    Adam,
    ExponentialDecay,
    Ftrl,
    LazyAdam,
    Momentum,
    RMSProp,
    RowwiseAdagrad,
    Sgd,
)

RULES: dict[str, Any] = {
    "sgd": Sgd(learning_rate=0.1),
    "adagrad": Adagrad(learning_rate=0.1),
    "momentum": Momentum(learning_rate=0.1),
    "nesterov": Momentum(learning_rate=0.1, use_nesterov=True),
    "rmsprop": RMSProp(learning_rate=0.1, momentum=0.5),
    "centered": RMSProp(learning_rate=0.1, centered=True),
    "lazy": LazyAdam(learning_rate=0.1),
    "decay": Adagrad(learning_rate=ExponentialDecay(initial=0.1, decay_steps=2, decay_rate=0.5)),
    "ftrl": Ftrl(learning_rate=0.1, l1_regularization_strength=0.01),
    "shrink": Ftrl(
        learning_rate=0.1,
        l2_regularization_strength=0.1,
        l2_shrinkage_regularization_strength=0.1,
    ),
    "rowwise": RowwiseAdagrad(learning_rate=0.1),
}
ULPS = {"ftrl": 8, "shrink": 8, "rowwise": 8}
"""XLA multiplies by the inverse of a constant rate, and sums a row in an order of its own."""


def engine_of(rule: Any, dim: int = 8, rows: int = 500, ids: int = 64) -> XlaEngine:
    table = TableConfig(name="t", vocab_size=rows, dim=dim, optimizer=rule)
    return XlaEngine([table], [FeatureConfig(name="t", table="t")], batch_size=ids)


def stepper(engine: XlaEngine, **options: Any) -> Any:
    """One step of gradients that are given, cut to the rows that there are."""

    def step(state: Any, lookups: Any, gradient: Any) -> Any:
        rows = engine.gather(state, lookups)
        cut = {name: gradient[: len(held)] for name, held in rows.items()}
        return engine.update(state, lookups, rows, cut)

    return jax.jit(step, **options)


def trained(engine: XlaEngine, gradients: Any, seed: int = 0, steps: int = 3) -> Any:
    """The state's arrays after some steps; some ids are missing."""
    state, step = engine.init(jax.random.key(seed)), stepper(engine)
    rng = np.random.default_rng(seed)
    for nth in range(steps):
        ids = rng.integers(-2, engine.stacks[0].tables[0].vocab_size, engine.batch_size)
        state = step(state, engine.prepare({"t": ids}), gradients[nth])
    return jax.tree.map(np.asarray, state)


def both(monkeypatch: pytest.MonkeyPatch, make: Any) -> tuple[Any, Any]:
    """What `make` gives with updates in one go, and with XLA's."""
    found = make()
    with monkeypatch.context() as patch:
        patch.setattr(updating, "target_of", lambda *_: None)
        return found, make()


def same(found: Any, want: Any, ulps: int) -> None:
    """Equal to the last bit, or within so many units in the last place of the largest number."""
    if not ulps:
        jax.tree.map(np.testing.assert_array_equal, found, want)
        return
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=ulps * np.spacing(np.float32(scale)))


@pytest.mark.parametrize("dim", [1, 3, 16, 30, 64, 129])
@pytest.mark.parametrize("name", RULES)
def test_rows_change_as_xla_changes_them(
    name: str, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(dim)
    gradients = rng.normal(size=(3, 64, dim)).astype(np.float32)
    gradients[0, :3] = [[np.inf], [np.nan], [0.0]]
    assert updating.target_of(RULES[name], dim, max(1, 1 << (dim - 1).bit_length()))
    found, want = both(monkeypatch, lambda: trained(engine_of(RULES[name], dim), gradients))
    same(found, want, ULPS.get(name, 0))


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["adagrad", "momentum", "lazy", "rmsprop"]),
    st.integers(1, 40),
    st.integers(1, 200),
    st.floats(-(2.0**60), 2.0**60, width=32),
)
def test_any_rows_and_numbers(seed: int, name: str, dim: int, ids: int, scale: float) -> None:
    gradients = np.random.default_rng(seed).normal(size=(2, ids, dim)).astype(np.float32)
    make = partial(trained, engine_of(RULES[name], dim, 50, ids), gradients * scale, seed % 7, 2)
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        same(*both(patch, make), 0)


def test_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = 3 * BLOCK + 5
    gradients = np.random.default_rng(0).normal(size=(1, ids, 4)).astype(np.float32)
    make = lambda: trained(engine_of(Adagrad(), 4, 10 * ids, ids), gradients, steps=1)  # noqa: E731
    same(*both(monkeypatch, make), 0)


@pytest.mark.parametrize("donated", [True, False])
def test_in_place_where_the_state_is_donated(donated: bool) -> None:
    engine = engine_of(Adagrad(), 16, 20_000)
    step = stepper(engine, donate_argnums=0 if donated else ())
    state, gradient = engine.init(jax.random.key(0)), jnp.ones((64, 16))
    lookups = engine.prepare({"t": np.arange(64)})
    before = jax.tree.map(np.array, state)
    size = step.lower(state, lookups, gradient).compile().memory_analysis().temp_size_in_bytes
    assert size < 50_000 if donated else size < 4_000_000
    after = step(state, lookups, gradient)
    (found,), (start,) = after["stacks"].values(), before["stacks"].values()
    moved = np.argwhere((np.asarray(found["value"]) != start["value"]).any(1))
    assert 0 < len(moved) <= 64
    if not donated:
        jax.tree.map(np.testing.assert_array_equal, state, before)


def test_derivatives_are_xlas(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(Momentum(learning_rate=0.1), 4, 20, 8)
    state, lookups = engine.init(jax.random.key(0)), engine.prepare({"t": np.arange(8)})

    def loss(gradient: Any) -> Any:
        (stack,) = stepper(engine)(state, lookups, gradient)["stacks"].values()
        return jnp.square(stack["value"]).sum()

    gradient = jnp.arange(32.0).reshape(8, 4)
    found, want = both(monkeypatch, lambda: jax.grad(loss)(gradient))
    assert np.abs(want).max() > 0
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_under_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(Adagrad(), 4, 20, 8)
    state, lookups = engine.init(jax.random.key(0)), engine.prepare({"t": np.arange(8)})
    gradients = np.random.default_rng(0).normal(size=(3, 8, 4)).astype(np.float32)
    step = lambda: jax.vmap(lambda g: stepper(engine)(state, lookups, g))(gradients)  # noqa: E731
    same(*both(monkeypatch, step), 0)


def test_callers_at_once() -> None:
    engine = engine_of(Adagrad(), 16, 50_000, 20_000)
    gradients = np.random.default_rng(0).normal(size=(2, 20_000, 16)).astype(np.float32)
    want = trained(engine, gradients, steps=2)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: trained(engine, gradients, steps=2), range(16)):
            same(found, want, 0)


def test_rules_of_one_formula_share_a_function_but_not_their_numbers() -> None:
    slow, fast = Adagrad(learning_rate=0.1), Adagrad(learning_rate=0.2)
    assert updating.target_of(slow, 8, 8) == updating.target_of(fast, 8, 8)
    gradients = np.ones((1, 64, 8), np.float32)
    changes = []
    for rule in (slow, fast):
        engine = engine_of(rule)
        start, state = engine.init(jax.random.key(0)), trained(engine, gradients, steps=1)
        ((before,), (after,)) = (s["stacks"].values() for s in (start, state))
        changes.append(np.abs(after["value"] - np.asarray(before["value"])).max())
    np.testing.assert_allclose(changes[1], 2 * changes[0], rtol=1e-4)


FORMULAS: dict[str, Any] = {
    "clipped": lambda g, w: jnp.clip(g, -0.5, 0.5),
    "sign": lambda g, w: jnp.where(g > 0, 1.0, jnp.where(g <= -1, -2.0, abs(w))),
    "both": lambda g, w: jnp.where((g < 1) & (w >= 0) | (g > 2), jnp.minimum(g, w), 0.0),
    "mean of the row": lambda g, w: g - w.sum(axis=1, keepdims=True) / w.shape[1],
    "a sum of one": lambda g, w: g * g[:, None].sum(axis=1),
}
OTHERS: dict[str, Any] = {
    "sine": lambda g, w: jnp.sin(g),
    "integers": lambda g, w: g + (lax_bits(w) + 1).astype(jnp.float32),
    "another constant for each": lambda g, w: g * jnp.arange(1, 1 + w.shape[1], dtype=w.dtype),
    "mean of all rows": lambda g, w: g - w.mean(axis=0),
    "all rows in one": lambda g, w: (g.reshape(1, -1) * w.reshape(1, -1)).reshape(g.shape),
    "elements swapped": lambda g, w: g + w[:, ::-1],
    "largest of the row": lambda g, w: g - w.max(axis=1, keepdims=True),
}


def lax_bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32)


@dataclass(frozen=True, kw_only=True)
class Custom(Sgd):
    """A rule of one's own."""

    formula: str = "clipped"

    def _formula(self, at: Any, g: Any, w: Any, slots: Any, scalars: Any, rows: bool) -> Any:
        return at.product((FORMULAS | OTHERS)[self.formula](g, w), at.rate(self.learning_rate)), {}


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("dim", [1, 8])
def test_rules_of_ones_own(dim: int, formula: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Custom(learning_rate=0.1, formula=formula)
    gradients = np.random.default_rng(0).normal(size=(3, 64, dim)).astype(np.float32)
    assert updating.target_of(rule, dim, dim)
    found, want = both(monkeypatch, lambda: trained(engine_of(rule, dim), gradients))
    same(found, want, 8)


@dataclass(frozen=True, kw_only=True)
class Warm(Sgd):
    """A rule of one's own that asks for the step beside its rate."""

    def _formula(self, at: Any, g: Any, w: Any, slots: Any, scalars: Any, rows: bool) -> Any:
        return jnp.where(at.step < 2, 0.0, g), {}


@pytest.mark.parametrize(
    "rule",
    [
        *(Custom(learning_rate=0.1, formula=formula) for formula in OTHERS),
        Warm(learning_rate=0.1),
        Adam(),
        Ftrl(learning_rate_power=-0.3),
    ],
    ids=[*OTHERS, "step", "adam", "ftrl"],
)
def test_other_rules_are_left_to_xla(rule: Any) -> None:
    assert updating.target_of(rule, 8, 8) is None
    engine = engine_of(rule)
    start, lookups = engine.init(jax.random.key(0)), engine.prepare({"t": np.arange(64)})
    state = start
    for _ in range(3):
        state = stepper(engine)(state, lookups, jnp.full((64, 8), 0.5))
    moved = engine.table_rows(state, "t") != engine.table_rows(start, "t")
    assert moved[:64].all()
    assert not moved[64:].any()


def test_rows_that_are_too_long_are_left_to_xla() -> None:
    rule = Adagrad()
    assert updating.target_of(rule, updating.MOST, updating.MOST)
    assert updating.target_of(rule, updating.MOST + 1, 2 * updating.MOST) is None
    assert updating.target_of(dataclasses.replace(rule, exact=False), 8, 8)
