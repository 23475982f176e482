"""Compiles an engine's train step for a TPU topology and prints what the program holds, as JSON.

Run by test_compiled.py in a process of its own, with the environment variables that the TPU
compiler wants before jax is imported:

    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1 \\
        python tpu_program.py v6e:2x2 32
"""

import json
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from monolith_jax.embedding import FeatureConfig, TableConfig, XlaEngine
from monolith_jax.optimizers import Adagrad

VOCAB, BATCH = 4_000_000, 8192


def main(topology: str, dim: int) -> None:
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = Mesh(np.array(devices), ("data",))
    tables = [
        TableConfig(name="t", vocab_size=VOCAB, dim=dim, optimizer=Adagrad(learning_rate=0.1))
    ]
    features = [FeatureConfig(name="f", table="t", max_length=4)]
    engine = XlaEngine(tables, features, batch_size=BATCH, mesh=mesh)

    def step(state: Any, lookups: Any) -> Any:
        rows = engine.gather(state, lookups)
        loss, gradients = jax.value_and_grad(
            lambda rows: jnp.square(engine.combine(rows, lookups)["f"] - 1.0).mean()
        )(rows)
        return engine.update(state, lookups, rows, gradients), loss

    ids = np.random.default_rng(0).integers(0, VOCAB, (BATCH, 4))
    lookups = engine.prepare({"f": ids})
    lookups = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        lookups,
        engine.lookups_sharding(lookups),
    )
    state = engine.abstract_state()
    compiled = jax.jit(step, donate_argnums=0).lower(state, lookups).compile()
    memory = compiled.memory_analysis()
    value = next(iter(state["stacks"].values()))["value"]
    block = f"[{value.shape[0] // len(devices)},{value.shape[1]}]"
    report = {
        "array": value.size * 4 // len(devices),
        "batch": BATCH * 4 * 512 // len(devices),
        "alias": memory.alias_size_in_bytes,
        "temp": memory.temp_size_in_bytes,
    }
    print(json.dumps(report | read(compiled, block)))


def read(compiled: Any, block: str) -> dict[str, Any]:
    """Returns the copies of arrays of the block's shape, and the kinds of collectives."""
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        if "async-update" not in str(error):
            raise
        return {"text": False}  # jaxlib 0.10 cannot print what the newest libtpu compiles
    lines = [line.strip() for line in text.splitlines()]
    copies = [line[:200] for line in lines if re.search(r" copy(-start)?\(", line)]
    kinds = r" (all-to-all|all-gather|collective-permute)(?:-start)?\("
    return {
        "text": True,
        "copies": [line for line in copies if block in line.split(" copy")[0]],
        "collectives": sorted(set(re.findall(kinds, text))),
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
