"""Compiles whole train steps with the SparseCore engine for TPU topologies; prints them as JSON.

Run by test_compiled.py in a process of its own, with the environment variables that the TPU
compiler wants before jax is imported; one line of JSON for each `topology/model`:

    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1 \\
        python core_program.py v5p:2x2x1/dlrm v6e:2x2/deepfm
"""

import dataclasses
import json
import re
import sys
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from monolith_jax.planning import _hlo
from monolith_jax.task import TaskConfig
from monolith_jax.tasks.criteo import DLRM
from monolith_jax.tasks.movielens import DeepFM
from monolith_jax.training import Program

BATCH_PER_DEVICE = 512


def deepfm(devices: int) -> TaskConfig:
    """movielens.DeepFM (lazy Adam; vectors and biases) with a million users and items a device."""
    task = DeepFM().task()
    large = ("user_id", "item_id")
    tables = tuple(
        dataclasses.replace(table, vocab_size=1_000_000 * devices)
        if table.name.startswith(large)
        else table
        for table in task.tables
    )
    return dataclasses.replace(task, tables=tables)


def dlrm(devices: int) -> TaskConfig:
    """criteo.DLRM (Adagrad) with vectors of 128 and tables of 50,000 rows a device."""
    task = DLRM().task()
    tables = tuple(
        dataclasses.replace(table, vocab_size=50_000 * devices, dim=128) for table in task.tables
    )
    model = dataclasses.replace(task.model, bottom=(16, 128), top=(16,))
    return dataclasses.replace(task, tables=tables, model=model)


MODELS = {"deepfm": deepfm, "dlrm": dlrm}


def batch_of(program: Program) -> dict[str, Any]:
    """Returns the step's batch as shapes, prepared from random ids."""
    task = program.task
    batch = task.input.batch_size
    rng = np.random.default_rng(0)
    sizes = {table.name: table.vocab_size for table in task.tables}
    columns: dict[str, Any] = {}
    for feature in task.features:
        shape = (batch, feature.max_length) if feature.max_length > 1 else (batch,)
        columns.setdefault(feature.source, rng.integers(0, sizes[feature.table], shape))
    lookups = program.engine.prepare(columns)
    by_row = program.engine.lookups_sharding(lookups)
    example = jax.tree.leaves(by_row)[0]
    arrays = {
        "dense": np.zeros((batch, len(task.dense)), np.float32),
        "label": np.zeros(batch, np.float32),
        "weight": np.zeros(batch, np.float32),
    }
    shardings = {**dict.fromkeys(arrays, example), "lookups": by_row}
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        {**arrays, "lookups": lookups},
        shardings,
    )


def report(name: str) -> dict[str, Any]:
    """Compiles a model for a topology and returns what the tests judge."""
    topology, model = name.split("/")
    devices: Any = list(
        topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    )
    task = MODELS[model](len(devices))
    size = BATCH_PER_DEVICE * len(devices)
    task = dataclasses.replace(task, input=dataclasses.replace(task.input, batch_size=size))
    program = Program(task, devices)
    state, batch = program.abstract_state(), batch_of(program)
    window = program.abstract_checkpoint()["window"]
    start = time.monotonic()
    compiled = program.train_step.lower(state, window, batch).compile()
    seconds = time.monotonic() - start
    memory: Any = compiled.memory_analysis()
    text = compiled.as_text()
    instructions = _hlo.instructions(text)
    leaves = jax.tree.leaves(state)
    parts = [leaf.sharding.shard_shape(leaf.shape) for leaf in leaves]
    blocks = {part for part in parts if len(part) == 2 and part[0] > 10_000}
    return {
        "name": name,
        "engine": program.choice.name,
        "seconds": seconds,
        "state": int(
            sum(np.prod(p) * leaf.dtype.itemsize for p, leaf in zip(parts, leaves, strict=True))
        ),
        "smallest": int(min(4 * np.prod(block) for block in blocks)),
        "ids": BATCH_PER_DEVICE * sum(stack.ids_per_example for stack in program.engine.stacks),
        "alias": memory.alias_size_in_bytes,
        "temp": memory.temp_size_in_bytes,
        "targets": sorted(set(re.findall(r'custom_call_target="([A-Za-z]+)"', text))),
        "sparse": text.count('execution_thread="sparsecore"'),
        "copies": _hlo.copies(instructions, blocks),
        "host": _hlo.host_transfers(instructions),
        "collectives": _hlo.collectives(instructions),
        "table_shaped": sorted(
            {
                one.opcode
                for one in instructions.values()
                if any(shape in blocks for _, shape in one.arrays)
            }
        ),
    }


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(json.dumps(report(each)), flush=True)
