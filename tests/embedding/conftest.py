"""Tables, features and batches that the tests of this room share."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform, XlaEngine
from monolith_jax.input import Ragged
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

BATCH = 64

RULES = {
    "sgd": Sgd(learning_rate=0.5),
    "adagrad": Adagrad(learning_rate=0.5),
    "adagrad_schedule": Adagrad(
        learning_rate=ExponentialDecay(initial=0.5, decay_steps=2, decay_rate=0.5)
    ),
    "momentum": Momentum(learning_rate=0.1, momentum=0.9),
    "nesterov": Momentum(learning_rate=0.1, momentum=0.9, use_nesterov=True),
    "rmsprop": RMSProp(learning_rate=0.05, momentum=0.5),
    "rmsprop_centered": RMSProp(learning_rate=0.05, momentum=0.5, centered=True),
    "adam": Adam(learning_rate=0.05),
    "lazy_adam": LazyAdam(learning_rate=0.05),
    "ftrl": Ftrl(learning_rate=0.5, l1_regularization_strength=0.01),
    "rowwise_adagrad": RowwiseAdagrad(learning_rate=0.5),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that takes `rule_name` once for each rule."""
    if "rule_name" in metafunc.fixturenames:
        metafunc.parametrize("rule_name", RULES)


@pytest.fixture(scope="session")
def rules() -> dict[str, Any]:
    """Every rule there is. One program with all of them compiles faster than one for each."""
    return RULES


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    """Eight CPU devices in a row."""
    return Mesh(np.array(jax.devices()[:8]), ("data",))


@pytest.fixture(scope="session")
def tables() -> Callable[..., tuple[TableConfig, ...]]:
    """Makes three tables a rule: two of one dim (one stack), one of a dim that is padded."""

    def make(
        rules: Mapping[str, Any], sizes: tuple[int, int, int] = (61, 1000, 61)
    ) -> tuple[TableConfig, ...]:
        kind = Uniform(scale=0.5)
        return tuple(
            TableConfig(
                name=f"{prefix}_{name}", vocab_size=n, dim=dim, optimizer=rule, initializer=kind
            )
            for prefix, rule in rules.items()
            for (name, dim), n in zip((("user", 16), ("item", 16), ("bias", 5)), sizes, strict=True)
        )

    return make


@pytest.fixture(scope="session")
def features() -> Callable[..., tuple[FeatureConfig, ...]]:
    """Makes six features a rule: shared tables and columns, every combiner."""

    def make(rules: Mapping[str, Any]) -> tuple[FeatureConfig, ...]:
        lookups: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
            ("user", "user", "user", {}),
            ("liked", "liked", "item", {"combiner": "mean", "max_length": 4}),
            ("user_bias", "user", "bias", {}),
            ("item", "item", "item", {}),
            ("seen", "liked", "item", {"combiner": "sqrtn", "max_length": 5}),
            ("pair", "pair", "user", {"max_length": 2}),
        )
        return tuple(
            FeatureConfig(
                name=f"{prefix}_{name}", column=column, table=f"{prefix}_{table}", **options
            )
            for prefix in rules
            for name, column, table, options in lookups
        )

    return make


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def step() -> Callable[..., Callable[..., Any]]:
    """Makes the jitted, donated train step of an engine, with a loss that treats rows unalike."""

    def make(engine: XlaEngine) -> Callable[..., Any]:
        def one(state: Any, lookups: Any, target: Any) -> Any:
            rows = engine.gather(state, lookups)

            def loss(rows: Any) -> Any:
                vectors = engine.combine(rows, lookups)
                parts = [
                    ((i % 6 + 1.0) * (vector - target[:, None]) ** 2).sum()
                    for i, vector in enumerate(vectors.values())
                ]
                return sum(parts) / target.shape[0]

            value, gradients = jax.value_and_grad(loss)(rows)
            return engine.update(state, lookups, rows, gradients), value

        return jax.jit(one, donate_argnums=0)

    return make


@pytest.fixture(scope="session")
def compiled_for_tpus() -> Callable[..., dict[str, Any]]:
    """Runs a script that compiles for TPUs: (script, programs, seconds) -> its JSON by name.

    In a process of its own, with the environment that the compiler wants before jax is imported.
    """

    def run(script: Path, programs: Sequence[str], timeout: float) -> dict[str, Any]:
        switches = {
            "TPU_SKIP_MDS_QUERY": "1",
            "JAX_PLATFORMS": "cpu",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "XLA_FLAGS": "",
        }
        done = subprocess.run(
            [sys.executable, str(script), *programs],
            env={**os.environ, **switches},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {one["name"]: one for one in found}

    return run
