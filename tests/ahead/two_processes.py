"""One of two processes: takes a step that one of them saved, and trains with and without it."""

import sys
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from monolith_jax import distributed
from monolith_jax.ahead import SavedSteps, save
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.input import Batch
from monolith_jax.models import DeepFMConfig
from monolith_jax.planning.compiled import compile_step
from monolith_jax.task import InputConfig, TaskConfig
from monolith_jax.training.program import Program

SMALL = TaskConfig(
    input=InputConfig(batch_size=32),
    tables=(TableConfig(name="user", vocab_size=1000, dim=8),),
    features=(FeatureConfig(name="user", table="user"),),
    model=DeepFMConfig(vectors=("user",), biases=(), hidden=(4,)),
)


def run(program: Program) -> list[np.ndarray]:
    """Returns this process's part of what two steps leave."""
    state, window = program.init(0), program.empty_window()
    for k in range(2):
        random = np.random.default_rng(k)
        columns: dict[str, Any] = {
            "user": random.integers(0, 1000, 32),
            "label": random.integers(0, 2, 32).astype(np.float32),
        }
        batch = program.prepare(Batch(columns, np.ones(32, np.float32)))
        state, window = program.train_step(state, window, batch)
    leaves = jax.tree.leaves((state, window))
    return [np.asarray(part.data) for leaf in leaves for part in leaf.addressable_shards]


def main(number: str, port: str, folder: str) -> None:
    """Prints what the saved step says, and whether the two runs agree to the last bit."""
    distributed.start(distributed.cluster_from(f"127.0.0.1:{port}", 2, int(number), 120.0))
    done = compile_step(SMALL, jax.devices())
    if distributed.is_primary():
        save(folder, "small", done.program, done.arguments_of, "cpu:2", done.step)
    multihost_utils.sync_global_devices("saved")
    program = Program(SMALL, jax.devices())
    program.train_step = SavedSteps(program, "small", folder, print)
    pairs = zip(run(program), run(Program(SMALL, jax.devices())), strict=True)
    print("same:", all(np.array_equal(one, other) for one, other in pairs))


if __name__ == "__main__":
    main(*sys.argv[1:])
