"""A small task on eight devices, and batches for it that need no file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.ahead import save
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.input import Batch
from monolith_jax.models import DeepFMConfig
from monolith_jax.planning.compiled import compile_step
from monolith_jax.task import InputConfig, TaskConfig
from monolith_jax.training.program import Program

BATCH = 32


@pytest.fixture(scope="session")
def small() -> TaskConfig:
    return TaskConfig(
        input=InputConfig(batch_size=BATCH),
        tables=(TableConfig(name="user", vocab_size=1000, dim=8),),
        features=(FeatureConfig(name="user", table="user", max_length=2),),
        dense=("x",),
        model=DeepFMConfig(vectors=("user",), biases=(), hidden=(4,)),
    )


@pytest.fixture(scope="session")
def batch() -> Callable[..., Batch]:
    """Makes batch number k."""

    def make(k: int, size: int = BATCH) -> Batch:
        random = np.random.default_rng(k)
        columns: dict[str, Any] = {
            "user": random.integers(0, 1000, (size, 2)),
            "x": random.normal(size=size).astype(np.float32),
            "label": random.integers(0, 2, size).astype(np.float32),
        }
        return Batch(columns, np.ones(size, np.float32))

    return make


@pytest.fixture(scope="session")
def saved(small: TaskConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the small task's step, alone in its folder."""
    folder = tmp_path_factory.mktemp("steps")
    done = compile_step(small, jax.devices())
    return Path(save(str(folder), "small", done.program, done.arguments_of, "cpu:8", done.step))


@pytest.fixture
def run(batch: Callable[..., Batch]) -> Callable[..., Any]:
    """Runs three steps of a program and returns what they leave."""

    def steps(program: Program, size: int = BATCH) -> Any:
        state, window = program.init(0), program.empty_window()
        for k in range(3):
            state, window = program.train_step(state, window, program.prepare(batch(k, size)))
        return state, window

    return steps
