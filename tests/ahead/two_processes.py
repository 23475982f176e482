"""One of two processes: takes a step that one of them saved, and trains with and without it.

Then the two do not see the same, or one is refused what the other loads.
"""

import sys
import tempfile
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from monolith_jax import distributed
from monolith_jax.ahead import SavedSteps, save, steps
from monolith_jax.ahead.loaded import Loaded
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.errors import UserError
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


def refused(*_: Any) -> None:
    """Stands for a runtime that does not take the program."""
    raise RuntimeError("another runtime")


def compare(case: str, folder: str, want: list[np.ndarray]) -> None:
    """Prints what a run with saved steps says, whether it took one, and whether its bits are so."""
    program = Program(SMALL, jax.devices())
    program.train_step = SavedSteps(program, "small", folder, lambda line: print(case, line))
    pairs = zip(run(program), want, strict=True)
    print(case, "same:", all(np.array_equal(one, other) for one, other in pairs))
    print(case, "taken:", any(program.train_step._by_shapes.values()))


def main(number: str, port: str, folder: str) -> None:
    """Runs all cases."""
    distributed.start(distributed.cluster_from(f"127.0.0.1:{port}", 2, int(number), 120.0))
    first = distributed.is_primary()
    done = compile_step(SMALL, jax.devices())
    if first:
        save(folder, "small", done.program, done.arguments_of, "cpu:2", done.step)
    multihost_utils.sync_global_devices("saved")
    want = run(Program(SMALL, jax.devices()))
    compare("alike:", folder, want)
    steps.Loaded = Loaded if first else refused  # type: ignore[assignment, misc]
    compare("refused:", folder, want)
    steps.Loaded = Loaded  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as other:
        compare("elsewhere:", folder if first else other, want)
        try:
            compare("nowhere:", folder if first else f"{other}/none", want)
        except UserError as error:
            print("nowhere:", error)


if __name__ == "__main__":
    main(*sys.argv[1:])
