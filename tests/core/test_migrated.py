"""The script in examples/ that came over from Monolith."""

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "migrated.py"


def test_it_runs_with_its_prefix_changed_alone() -> None:
    """Whole, in a process of its own; and nothing in it is ours but the prefix of two imports."""
    one_device = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
        env=one_device,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        "files of two days: ['data/20200502/part-0', 'data/20200503/part-0']",
        "steps done: 10",
        "files to skip: [2]",
        "optimizer: GradientTransformation",
    ]
    ours = re.findall(r".*monolith_jax.*", SCRIPT.read_text())
    assert all(re.match(r"from monolith_jax\.core[. ]", line) for line in ours)
    assert len(ours) == 2
