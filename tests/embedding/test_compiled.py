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


@pytest.fixture(scope="module")
def compiled(
    request: Any, rules: Any, tables: Any, features: Any, batches: Any, step: Any, mesh: Any
) -> Any:
    """The step of tables of 1 M rows for every rule: (state per device, program text, memory)."""
    engine = XlaEngine(
        tables(rules, (1_000_000, 1_000_000, 1_000_000)),
        features(rules),
        batch_size=64,
        mesh=mesh if request.param else None,
    )
    lookups = engine.prepare(batches(1)[0])
    lookups = jax.device_put(lookups, engine.lookups_sharding(lookups))
    state = engine.abstract_state()
    target = jax.ShapeDtypeStruct((64,), np.float32)
    done = step(engine).lower(state, lookups, target).compile()
    blocks = [
        (x.shape[0] // engine.devices, *x.shape[1:]) for x in jax.tree.leaves(state) if x.size > 1
    ]
    return request.param, blocks, done.as_text(), done.memory_analysis()


@pytest.mark.parametrize("compiled", [False, True], ids=["one", "eight"], indirect=True)
def test_no_copy_of_a_table(compiled: Any) -> None:
    sharded, blocks, text, memory = compiled
    assert memory.alias_size_in_bytes >= sum(4 * np.prod(block) for block in blocks)
    copied = re.findall(r"= \w+\[([\d,]+)\]\S* copy\(", text)
    assert not set(blocks) & {tuple(map(int, shape.split(","))) for shape in copied}
    # Nothing the size of a table lives beside the state, eight devices together or alone.
    smallest = 4 * min(np.prod(block) for block in blocks if len(block) > 1)
    assert memory.temp_size_in_bytes < smallest
    assert "all-gather" not in text
    assert ("all-to-all" in text) == sharded


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
