"""Compiles the train step of movielens.DeepFM for TPU topologies; prints what it holds, as JSON.

Run by test_compiled.py in a process of its own, with the environment variables that the TPU
compiler wants before jax is imported; one line of JSON for each `topology/dim`:

    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1 \\
        python tpu_program.py v6e:2x2/32 v5p:2x2x1/128
"""

import dataclasses
import json
import sys
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from monolith_jax.planning import _hlo
from monolith_jax.task import TaskConfig
from monolith_jax.tasks.movielens import DeepFM
from monolith_jax.training import Program

# Users and items for each device. Blocks of 16 MB and less, as smaller tables of biases would have,
# are moved into the chip's own memory whole, where XLA finds that cheaper.
VOCAB_PER_DEVICE, BATCH_PER_DEVICE = 4_000_000, 1024


def task_of(dim: int, devices: int) -> TaskConfig:
    """The task as registered, with users and items of millions, vectors of `dim`, and a batch."""
    task = DeepFM().task()
    tables = []
    for table in task.tables:
        large = table.name.startswith(("user_id", "item_id"))
        size = VOCAB_PER_DEVICE * devices if large else table.vocab_size
        width = 1 if table.dim == 1 else dim
        tables.append(dataclasses.replace(table, vocab_size=size, dim=width))
    return dataclasses.replace(
        task,
        tables=tuple(tables),
        input=dataclasses.replace(task.input, batch_size=BATCH_PER_DEVICE * devices),
        train=dataclasses.replace(task.train, engine="xla"),
    )


def arguments(program: Program) -> tuple[dict[str, Any], dict[str, int], dict[str, Any]]:
    """Returns the step's batch as shapes with shardings, and by stack the rows that it touches.

    And how much of the stack's lists is moved, of how much: not the padding, where kernels move
    the rows.
    """
    task, batch = program.task, program.task.input.batch_size
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    sizes = {table.name: table.vocab_size for table in task.tables}
    for feature in task.features:
        shape = (batch, feature.max_length) if feature.max_length > 1 else (batch,)
        columns.setdefault(feature.source, rng.integers(0, sizes[feature.table], shape))
    lookups = program.engine.prepare(columns)
    touched, full = {}, {}
    for stack in program.engine.asking:
        block, asked = stack.layout.physical_rows // program.engine.devices, lookups[stack.name]
        touched[stack.name] = int((np.asarray(asked.rows) < block).sum())
        reach = program.engine.reach[stack.name]
        units = np.asarray(asked.rows if asked.lines is None else asked.lines)
        there = int((units < block // reach.rows).sum())
        full[stack.name] = (there if reach.kernel else units.size, units.size)
    one = jax.ShapeDtypeStruct((batch,), np.float32)
    arrays = {"dense": jax.ShapeDtypeStruct((batch, 0), np.float32), "label": one, "weight": one}
    rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), lookups)
    by_row = program.engine.lookups_sharding(lookups)
    example = jax.tree.leaves(by_row)[0]
    shardings = {**dict.fromkeys(arrays, example), "lookups": by_row}
    return jax.tree.map(_placed, {**arrays, "lookups": rows}, shardings), touched, full


def _placed(x: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def report(topology: str, dim: int) -> dict[str, Any]:
    """Compiles for a topology and returns what the tests judge."""
    devices: Any = list(
        topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    )
    program = Program(task_of(dim, len(devices)), devices)
    batch, touched, full = arguments(program)
    state, window = program.abstract_state(), program.abstract_checkpoint()["window"]
    compiled = program.train_step.lower(state, window, batch).compile()
    memory: Any = compiled.memory_analysis()
    engine, stacks = program.engine, program.engine.stacks
    parts = [leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(state)]
    sizes = [leaf.dtype.itemsize for leaf in jax.tree.leaves(state)]
    shapes = {s.name: s.layout.shape for s in engine.asking}
    shapes |= {name: record.shape for name, record in engine.records.items()}
    blocks = {name: (shape[0] // len(devices), shape[1]) for name, shape in shapes.items()}
    # By what is looked up: of a row, with what lies beside it, the lanes in use and those moved.
    lanes = dict.fromkeys(shapes, 0)
    for s in stacks:
        lanes[engine.leads[s.name].name] += (1 + len(s.rule.slots)) * s.layout.dim
    units = {
        s.name: engine.reach[s.name].unit
        * (1 if s.name in engine.records else 1 + len(s.rule.slots))
        for s in engine.asking
    }
    floors = {name: 2 * touched[name] * n * 4 // len(devices) for name, n in lanes.items()}
    found = {
        "name": f"{topology}/{dim}",
        "kind": devices[0].device_kind,
        "state": int(sum(np.prod(p) * n for p, n in zip(parts, sizes, strict=True))),
        "ids": BATCH_PER_DEVICE * sum(s.ids_per_example for s in stacks),
        "alias": memory.alias_size_in_bytes,
        "temp": memory.temp_size_in_bytes,
        "floors": floors,
        "lanes": lanes,
        "units": units,
        "kernels": [s.name for s in engine.asking if engine.reach[s.name].kernel],
    }
    found |= _read(compiled, blocks)
    if found["text"]:
        traffic = found["traffic"].items()
        found["moved"] = {name: n * full[name][0] // full[name][1] for name, n in traffic}
    return found


def _read(compiled: Any, blocks: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Returns what the program's text says, or that jaxlib cannot print it."""
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        if "async-update" not in str(error):
            raise
        return {"text": False}  # jaxlib 0.10 cannot print what the newest libtpu compiles
    program = _hlo.instructions(text)
    return {
        "text": True,
        "traffic": {name: _hlo.row_traffic(program, {b}) for name, b in blocks.items()},
        "copies": _hlo.copies(program, set(blocks.values())),
        "collectives": _hlo.collectives(program),
        "host": _hlo.host_transfers(program),
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        topology, dim = name.split("/")
        print(json.dumps(report(topology, int(dim))), flush=True)
