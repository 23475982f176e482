"""A script that is also run in a process whose XLA fuses outputs, which this one's does not."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from monolith_jax.optimizers import MULTI_OUTPUT_FUSION


def module_of(script: Path) -> ModuleType:
    """Returns the script as a module, for what this process makes of it."""
    spec = importlib.util.spec_from_file_location(script.stem.removeprefix("_"), script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arrays_of(script: Path, folder: Path) -> dict[str, np.ndarray]:
    """Returns the arrays that `python SCRIPT FILE.npz` wrote, with the fusion and eight devices."""
    path = folder / "found.npz"
    flags = f"--xla_force_host_platform_device_count=8 {MULTI_OUTPUT_FUSION}"
    subprocess.run(
        [sys.executable, str(script), str(path)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        check=True,
        timeout=600,
    )
    with np.load(path) as found:
        return dict(found)
