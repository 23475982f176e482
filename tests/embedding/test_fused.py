"""With XLA's multi-output fusion, whose compiler takes no two scatters of the same indices."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monolith_jax.optimizers import MULTI_OUTPUT_FUSION

SCRIPT = Path(__file__).with_name("_fused_program.py")
SPEC = importlib.util.spec_from_file_location("fused_program", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
program = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(program)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    path = tmp_path_factory.mktemp("fused") / "found.npz"
    subprocess.run(
        [sys.executable, str(SCRIPT), str(path)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": MULTI_OUTPUT_FUSION},
        check=True,
        timeout=600,
    )
    with np.load(path) as found:
        return dict(found)


@pytest.mark.parametrize("case", program.RULES)
def test_tables_train_to_the_same_bits(fused, case):
    # The mean over a row is a sum whose order XLA chooses.
    tolerance = 2e-6 if case == "rowwise" else 0.0
    for name, want in program.train(case).items():
        found = fused[f"{case}/{name}"]
        np.testing.assert_allclose(found, want, rtol=tolerance, atol=0.0, err_msg=name)
