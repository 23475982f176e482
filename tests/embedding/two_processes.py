"""Every rule, trained on the devices of one process or of two; `test_processes` compares them.

As a script, one of two processes on loopback with four CPU devices each:

    python two_processes.py PROCESS_ID PORT FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.embedding._placement import place, place_all
from monolith_jax.optimizers import (
    Adagrad,
    Adam,
    Ftrl,
    LazyAdam,
    Momentum,
    RMSProp,
    RowwiseAdagrad,
    Sgd,
)

BATCH, STEPS, VOCAB, DIM = 64, 3, 640, 8
RULES = {
    "sgd": Sgd(learning_rate=0.5),
    "adagrad": Adagrad(learning_rate=0.5),
    "rowwise_adagrad": RowwiseAdagrad(learning_rate=0.5),
    "momentum": Momentum(learning_rate=0.1, momentum=0.9),
    "nesterov": Momentum(learning_rate=0.1, momentum=0.9, use_nesterov=True),
    "rmsprop": RMSProp(learning_rate=0.05, momentum=0.5),
    "centered": RMSProp(learning_rate=0.05, momentum=0.5, centered=True),
    "adam": Adam(learning_rate=0.05),
    "lazy_adam": LazyAdam(learning_rate=0.05),
    "ftrl": Ftrl(learning_rate=0.5, l1_regularization_strength=0.01),
}


def engine_on(mesh: Mesh | None) -> XlaEngine:
    """An engine with a table and two features for each rule, half of the tables cut by `div`."""
    tables, features = [], []
    for i, (name, rule) in enumerate(RULES.items()):
        sharding: Any = ("mod", "div")[i % 2]
        tables.append(
            TableConfig(name=name, vocab_size=VOCAB, dim=DIM, optimizer=rule, sharding=sharding)
        )
        for column, combiner in (("few", "mean"), ("one", "sum")):
            length = 3 if column == "few" else 1
            kind: Any = combiner
            features.append(
                FeatureConfig(
                    name=f"{name}_{column}",
                    column=column,
                    table=name,
                    combiner=kind,
                    max_length=length,
                )
            )
    return XlaEngine(tables, features, batch_size=BATCH, mesh=mesh, shards=16)


def records_on(mesh: Mesh | None) -> XlaEngine:
    """An engine that keeps a table's rows, their slots and biases in records."""
    rule = LazyAdam(learning_rate=0.05)
    tables = [
        TableConfig(name=name, vocab_size=VOCAB, dim=dim, optimizer=rule)
        for name, dim in (("vector", DIM), ("bias", 1))
    ]
    features = [FeatureConfig(name=t.name, column="one", table=t.name) for t in tables]
    engine = XlaEngine(tables, features, batch_size=BATCH, mesh=mesh, shards=16, form="records")
    assert [len(record.biases) for record in engine.records.values()] == [1]
    return engine


def batches(kind: str) -> list[dict[str, np.ndarray]]:
    """Batches of ids with repeats: "apart", none in two devices' examples; "shared", anywhere."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(STEPS):
        few, one = rng.integers(-1, VOCAB // 8, (BATCH, 3)), rng.integers(0, VOCAB // 8, BATCH)
        if kind == "apart":  # the examples of device d of 8 have ids that are d modulo 8
            device = np.arange(BATCH) // (BATCH // 8)
            few, one = np.where(few < 0, -1, few * 8 + device[:, None]), one * 8 + device
        made.append({"few": few, "one": one})
    return made


def train(mesh: Mesh | None) -> dict[str, np.ndarray]:
    """Returns every table and slot after the steps: `KIND/TABLE/SLOT`, `records/KIND/...`."""
    inside = train_on(records_on(mesh))
    return train_on(engine_on(mesh)) | {f"records/{key}": array for key, array in inside.items()}


def train_on(engine: XlaEngine) -> dict[str, np.ndarray]:
    """Returns every table and slot after the steps, by kind of batch: `KIND/TABLE/SLOT`."""
    rng = np.random.default_rng(1)
    start = engine.init(jax.random.key(0))
    tables = {table.name: table for stack in engine.stacks for table in stack.tables}
    for name in sorted(tables):
        rows = rng.normal(size=(VOCAB, tables[name].dim)).astype(np.float32)
        start = engine.with_table(start, name, rows)

    def one(state: Any, lookups: Any, target: Any) -> Any:
        rows = engine.gather(state, lookups)

        def loss(rows: Any) -> Any:
            # Factors of two: products are exact, and so it does not matter what is contracted.
            vectors = engine.combine(rows, lookups).values()
            return sum(0.5 * ((vector - target[:, None]) ** 2).sum() for vector in vectors)

        return engine.update(state, lookups, rows, jax.grad(loss)(rows))

    step, found = jax.jit(one, out_shardings=engine.state_sharding()), {}
    target = np.linspace(-1, 1, BATCH, dtype=np.float32)
    for kind in ("apart", "shared"):
        state = start
        for batch in batches(kind):
            lookups = engine.prepare(batch)
            where = engine.lookups_sharding(lookups)
            split = jax.tree.leaves(where)[0]
            state = step(state, place_all(lookups, where), place(target, split))
        for name in tables:
            found[f"{kind}/{name}/value"] = engine.table_rows(state, name)
            for slot, values in engine.table_slots(state, name).items():
                found[f"{kind}/{name}/{slot}"] = values
    return found


if __name__ == "__main__":
    me, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, me, initialization_timeout=60)
    assert (jax.device_count(), jax.local_device_count()) == (8, 4)
    ended = train(Mesh(np.array(jax.devices()), ("data",)))
    np.savez(folder / f"ended{me}.npz", **ended)
    jax.distributed.shutdown()
