"""What the compiled step holds: no copy of a table, nothing table-sized, the state donated."""

import importlib.util
import re
from collections.abc import Callable
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


TOPOLOGIES = (
    "v4:2x2x1/32",
    "v4:2x2x1/128",
    "v5e:2x2/32",
    "v5e:2x2/128",
    "v5p:2x2x1/32",
    "v5p:2x2x1/128",
    "v6e:2x2/32",
    "v6e:2x2/128",
    "tpu7x:2x2x1/32",
    "tpu7x:2x2x1/128",
)


@pytest.fixture(scope="module")
def programs(compiled_for_tpus: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The train step of movielens.DeepFM for each topology and dim, as tpu_program.py reads it."""
    script = Path(__file__).with_name("tpu_program.py")
    return compiled_for_tpus(script, TOPOLOGIES, timeout=600)


LINES_PER_ID = 3
"""Lines of 512 bytes that the temporaries of a step take at most, for each id of its batch."""

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install libtpu"
)


@needs_compiler
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_train_step_of_deepfm_writes_its_state_in_place(
    name: str, programs: dict[str, Any]
) -> None:
    """The state is donated in full, and what is beside it is bounded by the device's batch."""
    found = programs[name]
    assert found["alias"] >= found["state"]
    lines = found["temp"] / 512 / found["ids"]
    print(f"{found['kind']}: temporaries of {lines:.2f} lines an id")
    assert lines <= LINES_PER_ID


@needs_compiler
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_train_step_of_deepfm_moves_the_touched_rows(
    name: str, programs: dict[str, Any]
) -> None:
    """Traffic against the floor, each touched row and slot once in and once out.

    1.5 times at most over the whole step: where words are reached, and where lines are, by records.
    """
    found = programs[name]
    if not found["text"]:
        pytest.skip("jaxlib 0.10 cannot print the asynchronous programs of libtpu 0.0.52")
    assert found["copies"] == []
    assert found["host"] == []
    kinds = {kind for kind, _ in found["collectives"]}
    assert kinds == {"all-to-all", "all-reduce"}
    assert all(size <= 512 * found["ids"] for _, size in found["collectives"])
    dim = name.split("/")[1]
    floors, moved = found["floors"], found["moved"]
    for stack, floor in floors.items():
        # What is moved for a row: the row, or the word or line that holds it. XLA's gathers also
        # read the padding of the lists, a quarter more at most here; the kernels do not.
        times = found["units"][stack] / found["lanes"][stack]
        times *= 1.0 if stack in found["kernels"] else 1.25
        ratio = moved[stack] / floor
        print(f"{found['kind']}, {stack}: {ratio:.2f} times the floor")
        assert 1.0 <= ratio <= times
    total = sum(moved.values()) / sum(floors.values())
    print(f"{found['kind']}, dim {dim} and the biases: {total:.2f} times the floor")
    assert total <= 1.5
