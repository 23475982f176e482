"""Tables, features and batches of the SparseCore tests, and the library or the reason to skip."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform, XlaEngine
from monolith_jax.embedding.sparsecore import (
    SparseCoreEngine,
    SparseCores,
    library_missing,
    sparsecores_of,
)
from monolith_jax.input import Ragged
from monolith_jax.optimizers import Adagrad, ExponentialDecay, Ftrl, LazyAdam

BATCH = 64

RULES = {
    "adagrad": Adagrad(learning_rate=ExponentialDecay(initial=0.5, decay_steps=2, decay_rate=0.5)),
    "lazy_adam": LazyAdam(learning_rate=0.05),
    "ftrl": Ftrl(learning_rate=0.5, l1_regularization_strength=0.01),
}
DIMS = {"adagrad": 12, "lazy_adam": 1, "ftrl": 130}


@pytest.fixture(scope="session")
def library() -> Any:
    """The library's module for its host code, or the reason why the tests are skipped."""
    if reason := library_missing():
        pytest.skip(reason)
    from jax_tpu_embedding.sparsecore.lib.nn import embedding

    return embedding


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    """Two CPU devices."""
    return Mesh(np.array(jax.devices()[:2]), ("data",))


@pytest.fixture(scope="session", params=["mod", "div"])
def tables(request: Any) -> tuple[TableConfig, ...]:
    """Two tables for each of three rules, narrow, of one lane, and wider than a line.

    Their lines are dealt out to the shards, or cut into blocks.
    """
    return tuple(
        TableConfig(
            name=f"{name}_{size}",
            vocab_size=size,
            dim=DIMS[name],
            optimizer=rule,
            initializer=Uniform(scale=0.5),
            gradient_multiplier=size / 150,
            sharding=request.param,
        )
        for name, rule in RULES.items()
        for size in (50, 300)
    )


@pytest.fixture(scope="session")
def features() -> tuple[FeatureConfig, ...]:
    """Every combiner, weights, a sequence, a shared table, for each rule; ids beyond the table."""
    found: list[FeatureConfig] = []
    for rule in RULES:
        small: dict[str, Any] = {"table": f"{rule}_50", "out_of_range": "modulo"}
        large: dict[str, Any] = {"table": f"{rule}_300", "column": "many", "max_length": 5}
        found += [
            FeatureConfig(name=f"{rule}_one", column="one", **small),
            FeatureConfig(name=f"{rule}_first", column="one", negative="first", **small),
            FeatureConfig(name=f"{rule}_sum", out_of_range="zero", **large),
            FeatureConfig(name=f"{rule}_mean", combiner="mean", out_of_range="zero", **large),
            FeatureConfig(
                name=f"{rule}_sqrtn",
                combiner="sqrtn",
                weights="weights",
                out_of_range="modulo",
                **large,
            ),
            FeatureConfig(name=f"{rule}_seq", sequence=True, out_of_range="modulo", **large),
        ]
    return tuple(found)


@pytest.fixture(scope="session")
def batch() -> Callable[[int], dict[str, Any]]:
    """Makes batch k: ids below 0, beyond the table, twice in a list; weights of 0; empty lists."""

    def make(k: int, seed: int = 7) -> dict[str, Any]:
        rng = np.random.default_rng([seed, k])
        counts = rng.integers(0, 6, BATCH)
        offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
        ids = rng.integers(-20, 330, offsets[-1])
        ids[1::7] = ids[0::7][: len(ids[1::7])]
        weights = rng.random(offsets[-1]).astype(np.float32)
        weights[::5] = 0.0
        return {
            "one": rng.integers(-5, 60, BATCH),
            "many": Ragged(values=ids, offsets=offsets),
            "weights": Ragged(values=weights, offsets=offsets),
        }

    return make


@pytest.fixture(scope="session")
def engines(tables: Any, features: Any, mesh: Mesh, library: Any) -> Any:
    """(XlaEngine, SparseCoreEngine with emulated operations), of the same tables and devices."""
    xla = XlaEngine(tables, features, batch_size=BATCH, mesh=mesh, shards=8)
    cores = SparseCoreEngine(
        tables, features, batch_size=BATCH, mesh=mesh, shards=8, emulated=SparseCores(4, 8192)
    )
    return xla, cores


@pytest.fixture(scope="session")
def states(engines: Any) -> Any:
    """The engines' states before the first step, from one key."""
    xla, cores = engines
    return xla.init(jax.random.key(0)), cores.init(jax.random.key(0))


@pytest.fixture
def known() -> Any:
    """`sparsecores_of`, by the kind of a device."""

    class Device:
        def __init__(self, kind: str) -> None:
            self.device_kind = kind

    return lambda kind: sparsecores_of(Device(kind))
