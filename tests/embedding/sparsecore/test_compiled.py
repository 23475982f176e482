"""Whole train steps on SparseCores, compiled: their operations, the state donated, no copy."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monolith_jax.embedding.sparsecore import library_missing

PROGRAMS = ("v5p:2x2x1/dlrm", "v5p:2x2x1/deepfm", "v6e:2x2/deepfm", "tpu7x:2x2x1/deepfm")

pytestmark = [
    pytest.mark.skipif(bool(library_missing()), reason=library_missing() or "it is installed"),
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="pip install libtpu"),
]


@pytest.fixture(scope="module")
def programs(compiled_for_tpus: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Each program as core_program.py reads it."""
    script = Path(__file__).with_name("core_program.py")
    return compiled_for_tpus(script, PROGRAMS, timeout=600)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_train_step_on_sparsecores(name: str, programs: dict[str, Any]) -> None:
    """Chosen by itself; SparseCores read, exchange and update; only tables are shaped like tables.

    Temporaries are at most 24 lines of 512 bytes for each id of a device's batch: rows and their
    gradients, as sent and as received, in buffers with room for the fullest pair of SparseCores
    in every pair's place.
    """
    found = programs[name]
    per_id = found["temp"] / found["ids"]
    print(f"{name}: compiled in {found['seconds']:.1f} s, {per_id:.0f} bytes for each id")
    assert found["engine"] == "sparsecore"
    assert {"SparseGather", "AllToAllDynamic", "PartitionCsr"} <= set(found["targets"])
    assert found["sparse"] > 0
    assert found["alias"] >= found["state"]
    assert found["copies"] == []
    assert found["host"] == []
    # The tables come in, go through the SparseCores' update, and out; a gradient as large as a
    # table would be the result of something else.
    assert set(found["table_shaped"]) <= {
        "parameter",
        "custom-call",
        "custom-call-start",
        "custom-call-update",
        "custom-call-done",
        "call",
        "call-start",
        "call-update",
        "call-done",
        "get-tuple-element",
        "tuple",
    }
    assert per_id <= 24 * 512
    assert found["temp"] < found["smallest"]
    assert {kind for kind, _ in found["collectives"]} <= {"all-to-all", "all-reduce"}
