"""Updates in parts, as on CPUs, are updates."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine, _update


def trained(rules: dict[str, Any]) -> Any:
    """Returns the state after three steps of every rule, on tables of both dtypes."""
    tables = [
        TableConfig(name=f"{name}_{dtype}", vocab_size=500, dim=8, optimizer=rule, dtype=dtype)
        for name, rule in rules.items()
        for dtype in ("float32", "bfloat16")
    ]
    features = [FeatureConfig(name=t.name, table=t.name, column="ids") for t in tables]
    engine = XlaEngine(tables, features, batch_size=64)
    state = engine.init(jax.random.key(0))

    @jax.jit
    def step(state: Any, lookups: Any) -> Any:
        rows = engine.gather(state, lookups)
        gradients = jax.grad(
            lambda r: sum(jnp.square(x - 1.0).sum() for x in engine.combine(r, lookups).values())
        )(rows)
        return engine.update(state, lookups, rows, gradients)

    rng = np.random.default_rng(0)
    for _ in range(3):
        state = step(state, engine.prepare({"ids": rng.integers(-1, 500, 64)}))
    return state


@pytest.mark.parametrize("parts", [2, 4, 7])
def test_parts_are_the_whole_to_the_last_bit(
    parts: int, rules: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_update, "PARTS", 1)
    whole = trained(rules)
    monkeypatch.setattr(_update, "PARTS", parts)
    monkeypatch.setattr(_update, "LEAST_PART", 1)
    assert len(_update._parts(64)) == parts
    for stack, found in trained(rules)["stacks"].items():
        # The mean over a row is a sum whose order XLA chooses.
        tolerance = 2e-6 if "rowwise" in stack else 0.0
        same = partial(np.testing.assert_allclose, rtol=tolerance, atol=0.0, err_msg=stack)
        jax.tree.map(same, found, whole["stacks"][stack])


def test_few_rows_are_one_part() -> None:
    assert _update._parts(0) == [slice(0, 0)]
    assert _update._parts(2 * _update.LEAST_PART - 1) == [slice(0, 2 * _update.LEAST_PART - 1)]


@pytest.mark.parametrize("rows", [2 * _update.LEAST_PART, 311_808, 1_000_001])
def test_parts_hold_every_row_once(rows: int) -> None:
    held = np.concatenate([np.arange(rows)[part] for part in _update._parts(rows)])
    np.testing.assert_array_equal(held, np.arange(rows))
