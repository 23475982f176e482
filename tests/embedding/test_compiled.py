"""What the compiled step holds: no copy of a table, nothing table-sized, the state donated."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.embedding import XlaEngine
from monolith_jax.optimizers import Adagrad, Adam, LazyAdam, RMSProp, RowwiseAdagrad

RULES = {
    "adagrad": Adagrad(learning_rate=0.5),
    "adam": Adam(learning_rate=0.05),
    "lazy_adam": LazyAdam(learning_rate=0.05),
    "rmsprop": RMSProp(learning_rate=0.05, momentum=0.5),
    "rowwise_adagrad": RowwiseAdagrad(learning_rate=0.5),
}


def compile_step(engine: XlaEngine, step: Any, batch: Any) -> tuple[Any, Any]:
    lookups = engine.prepare(batch)
    lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
    state = engine.abstract_state()
    target = jax.ShapeDtypeStruct((64,), np.float32)
    return state, step(engine).lower(state, lookups, target).compile()


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_no_copy_of_a_table(
    name: str, sharded: bool, tables: Any, features: Any, batches: Any, step: Any, mesh: Any
) -> None:
    large = tuple(table.replace(vocab_size=1_000_000) for table in tables(RULES[name]))
    engine = XlaEngine(large, features, batch_size=64, mesh=mesh if sharded else None)
    state, compiled = compile_step(engine, step, batches(1)[0])
    per_device = 8 if sharded else 1
    arrays = [x for x in jax.tree.leaves(state) if x.size > 1000]
    blocks = {(x.shape[0] // per_device, *x.shape[1:]) for x in arrays}

    memory = compiled.memory_analysis()
    held = sum(x.size for x in arrays) * 4 // per_device
    assert memory.alias_size_in_bytes >= held
    assert memory.temp_size_in_bytes < 4_000_000 < min(x.size for x in arrays) * 4 // per_device * 8

    copied = re.findall(r"= \w+\[([\d,]+)\]\S* copy\(", compiled.as_text())
    assert not blocks & {tuple(map(int, shape.split(","))) for shape in copied}
    assert not re.search(r"all-gather", compiled.as_text())
    assert ("all-to-all" in compiled.as_text()) == sharded


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="pip install libtpu")
@pytest.mark.parametrize("dim", [32, 128])
def test_compiles_for_a_tpu_without_a_copy_of_a_table(dim: int) -> None:
    """A v6e of four chips, 4 M rows; takes some ten seconds of the TPU compiler."""
    switches = {
        "TPU_SKIP_MDS_QUERY": "1",
        "JAX_PLATFORMS": "cpu",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    script = Path(__file__).with_name("tpu_program.py")
    done = subprocess.run(
        [sys.executable, str(script), "v6e:2x2", str(dim)],
        env={**os.environ, **switches, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["alias"] >= 2 * found["array"]
    assert found["temp"] <= 16 * found["batch"] < found["array"]
    if found["text"]:
        assert found["copies"] == []
        assert found["collectives"] == ["all-to-all"]
