"""What every test runs under: eight CPU devices, strict dtypes, TensorFlow as the oracle."""

import os

# Before jax is imported anywhere: a mesh needs devices, and TensorFlow's chatter is no test output.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
import warnings
from pathlib import Path
from typing import Any

import hypothesis
import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent))
# the fixtures gcs, faults and quick_retries; process_pair
pytest_plugins = ["gcs_emulator", "process_pair"]

jax.config.update("jax_numpy_dtype_promotion", "strict")

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow, or the reason why the oracle tests are skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow", reason="the oracle: pip install -e '.[tf]'")
