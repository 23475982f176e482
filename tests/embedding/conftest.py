"""Tables, features and batches that the tests of this room share."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform, XlaEngine
from monolith_jax.input import Ragged

BATCH = 64


@pytest.fixture
def mesh() -> Mesh:
    """Eight CPU devices in a row."""
    return Mesh(np.array(jax.devices()[:8]), ("data",))


@pytest.fixture
def tables() -> Callable[..., tuple[TableConfig, ...]]:
    """Makes three tables of one rule: two of one dim (one stack), one of a dim that is padded."""

    def make(rule: Any) -> tuple[TableConfig, ...]:
        kind = Uniform(scale=0.5)
        return tuple(
            TableConfig(name=name, vocab_size=size, dim=dim, optimizer=rule, initializer=kind)
            for name, size, dim in (("user", 61, 16), ("item", 1000, 16), ("bias", 61, 5))
        )

    return make


@pytest.fixture
def features() -> tuple[FeatureConfig, ...]:
    """Shared tables, a shared column, every combiner, ids that are not there."""
    return (
        FeatureConfig(name="user", table="user"),
        FeatureConfig(name="liked", table="item", combiner="mean", max_length=4),
        FeatureConfig(name="user_bias", column="user", table="bias"),
        FeatureConfig(name="item", table="item"),
        FeatureConfig(name="seen", column="liked", table="item", combiner="sqrtn", max_length=5),
        FeatureConfig(name="pair", table="user", max_length=2),
    )


@pytest.fixture
def batches() -> Callable[[int], list[dict[str, Any]]]:
    """Makes batches of columns: few users (many duplicates), empty lists, negative ids."""

    def make(count: int) -> list[dict[str, Any]]:
        rng = np.random.default_rng(7)
        made = []
        for _ in range(count):
            lengths = rng.integers(0, 5, BATCH)
            made.append(
                {
                    "user": rng.integers(-1, 12, BATCH),
                    "item": rng.integers(0, 1000, BATCH),
                    "liked": Ragged(
                        rng.integers(-2, 300, lengths.sum()), np.append(0, np.cumsum(lengths))
                    ),
                    "pair": rng.integers(0, 61, (BATCH, 2)),
                }
            )
        return made

    return make


@pytest.fixture
def step() -> Callable[..., Callable[..., Any]]:
    """Makes the jitted, donated train step of an engine, with a loss that treats rows unalike."""

    def make(engine: XlaEngine) -> Callable[..., Any]:
        def one(state: Any, lookups: Any, target: Any) -> Any:
            rows = engine.gather(state, lookups)

            def loss(rows: Any) -> Any:
                vectors = engine.combine(rows, lookups)
                parts = [
                    ((i + 1.0) * (vector - target[:, None]) ** 2).sum()
                    for i, vector in enumerate(vectors.values())
                ]
                return sum(parts) / target.shape[0]

            value, gradients = jax.value_and_grad(loss)(rows)
            return engine.update(state, lookups, rows, gradients), value, gradients

        return jax.jit(one, donate_argnums=0)

    return make
