"""Trains small tables by several rules; run as a program it keeps what they became.

Usage: python _fused_program.py FILE.npz
"""

import sys

import jax
import numpy as np

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.optimizers import Adagrad, Adam, Ftrl, LazyAdam, RowwiseAdagrad

RULES = {
    "adagrad": Adagrad(learning_rate=0.05),
    "rowwise": RowwiseAdagrad(learning_rate=0.05),
    "lazy_adam": LazyAdam(learning_rate=0.05),
    "adam": Adam(learning_rate=0.05),
    "ftrl": Ftrl(learning_rate=0.05),
}


def train(case):
    """Returns a table's rows and slots after three steps, by name."""
    table = TableConfig(name="t", vocab_size=50, dim=4, optimizer=RULES[case])
    engine = XlaEngine([table], [FeatureConfig(name="f", table="t")], batch_size=16, shards=8)
    state = engine.init(jax.random.key(0))

    def step(state, lookups):
        rows = engine.gather(state, lookups)
        gradients = jax.grad(lambda r: (engine.combine(r, lookups)["f"] ** 2).sum())(rows)
        return engine.update(state, lookups, rows, gradients)

    jitted = jax.jit(step, donate_argnums=0)
    for seed in range(3):
        ids = np.random.default_rng(seed).integers(0, 50, 16)
        state = jitted(state, engine.prepare({"f": ids}))
    return {"value": engine.table_rows(state, "t"), **engine.table_slots(state, "t")}


if __name__ == "__main__":
    found = {f"{case}/{name}": x for case in RULES for name, x in train(case).items()}
    np.savez(sys.argv[1], **found)
