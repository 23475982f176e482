"""With XLA's multi-output fusion, whose compiler takes no two scatters of the same indices."""

from pathlib import Path

import numpy as np
import pytest
from fused_process import arrays_of, module_of

SCRIPT = Path(__file__).with_name("_fused_program.py")
program = module_of(SCRIPT)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    return arrays_of(SCRIPT, tmp_path_factory.mktemp("fused"))


@pytest.mark.parametrize("case", program.RULES)
def test_tables_train_to_the_same_bits(fused, case):
    # The mean over a row is a sum whose order XLA chooses.
    tolerance = 2e-6 if case == "rowwise" else 0.0
    for name, want in program.train(case).items():
        found = fused[f"{case}/{name}"]
        np.testing.assert_allclose(found, want, rtol=tolerance, atol=0.0, err_msg=name)
