"""What reading one tensor in a new process does not wait for."""

import subprocess
import sys

import numpy as np

from monolith_jax.checkpoint import tf as bundles

READ = """
import sys
from monolith_jax.checkpoint.tf import open_bundle, write_bundle
with open_bundle(sys.argv[1]) as bundle:
    value = bundle.read("w")
write_bundle(sys.argv[1] + "-copy", {"w": value})
print(*sorted({"jax", "jaxlib", "numba", "gcsfs", "tensorflow"} & set(sys.modules)))
"""


def test_reading_and_writing_local_files_import_no_jax(tmp_path):
    value = np.arange(100_000, dtype=np.float32)
    bundles.write_bundle(tmp_path / "m", {"w": value})
    command = [sys.executable, "-c", READ, str(tmp_path / "m")]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert run.stdout.split() == []
    assert np.array_equal(bundles.open_bundle(tmp_path / "m-copy").read("w"), value)


def test_every_public_name_is_there():
    assert set(bundles.__all__) <= set(dir(bundles))
    assert all(getattr(bundles, name).__name__ == name for name in bundles.__all__)
    assert not hasattr(bundles, "open_bundles")
