"""`monolith.core.util` and the rooms behind it over gs://, and without TensorFlow."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monolith_jax import storage
from monolith_jax.checkpoint.discovery import completed_step
from monolith_jax.core import util
from monolith_jax.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_retries")


def fill(gcs: Any) -> dict[str, Any]:
    """Puts four files of 100 examples, their meta file, and a checkpoint of step 10 in a bucket."""
    lines = []
    for day in range(1, 5):
        storage.write_bytes(gcs / f"data/2020050{day}/part-0", b"")
        lines.append(f"data/2020050{day}/part-0,100\n")
    storage.write_bytes(gcs / "meta", "".join(lines).encode())
    for name in ("-10.meta", "-10.index", "-2.meta", "-x.meta"):
        storage.write_bytes(gcs / f"run/model.ckpt{name}", b"")
    return {
        "batch_size_per_core": 2,
        "model_dir": gcs / "run",
        "train_dataset_path": gcs / "data/*/part*",
        "gcs_file_example_number": gcs / "meta",
    }


def test_update_params(gcs: Any) -> None:
    params = fill(gcs)
    util.update_params(params)  # 10 steps of 2 on 8 devices: 160 examples
    assert params["shard_skip_file_number"] == [1]
    assert params["global_batch_size"] == 16


def test_files_of_a_bucket_held_against_their_meta_file(gcs: Any, tmp_path: Path) -> None:
    params = fill(gcs)
    count = util.get_per_file_example_numbers_for_checkpoint_reload
    assert count(params["train_dataset_path"], gcs / "meta", ",") == [100] * 4
    assert count(gcs / "data/2020050[23]/*", gcs / "meta", ",") == [100, 100]
    assert count(gcs / "data", gcs / "meta", ",") == [100] * 4
    local = tmp_path / "meta"  # a local meta file, with whole paths
    local.write_text("".join(f"{gcs / ''}data/2020050{day}/part-0 7\n" for day in range(1, 5)))
    assert count(params["train_dataset_path"], local, " ") == [7] * 4
    storage.write_bytes(gcs / "data/20200503/part-1", b"")
    with pytest.raises(DataError, match=r"data/20200503/part-1 is not in gs://.*did you mean"):
        count(gcs / "data", gcs / "meta", ",")


def test_download_and_list(gcs: Any, tmp_path: Path) -> None:
    storage.write_bytes(gcs / "run/a-1", b"1")
    storage.write_bytes(gcs / "run/a-2", b"22")
    util.download_gcs_file(gcs / "run/a-1", tmp_path / "x")
    util.download_gcs_file_with_relative_path(gcs.name, "run/a-2", tmp_path / "y")
    assert (tmp_path / "x").read_bytes() == b"1"
    assert (tmp_path / "y").read_bytes() == b"22"
    bucket, files = util.list_gcs_files_with_prefix(gcs / "run/a")
    assert bucket == gcs.name
    assert [file.name for file in files] == ["run/a-1", "run/a-2"]


def test_files_of_a_bucket_in_a_range_of_dates(gcs: Any) -> None:
    fill(gcs)
    kept = util.range_dateset(
        storage.list_files(gcs / "data"), gcs / "data", "20200502", "20200503"
    )
    assert kept == [gcs / "data/20200502/part-0", gcs / "data/20200503/part-0"]


def test_native_checkpoints_count_once_they_are_committed(gcs: Any) -> None:
    """A folder cannot be renamed on gs://: orbax marks a complete one with a file, last."""
    storage.write_bytes(gcs / "run/checkpoints/5/_CHECKPOINT_METADATA", b"{}")
    assert completed_step(gcs / "run") == 0
    storage.write_bytes(gcs / "run/checkpoints/5/commit_success.txt", b"")
    assert completed_step(gcs / "run") == 5
    storage.write_bytes(gcs / "run/checkpoints/6/_CHECKPOINT_METADATA", b"{}")
    assert completed_step(gcs / "run/checkpoints/") == 5


def test_a_checkpoint_that_orbax_wrote_to_the_emulator(gcs: Any, tmp_path: Path) -> None:
    """In a process without TensorFlow: with it, orbax would ask TensorFlow for gs://."""
    script = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import jax.numpy as jnp, orbax.checkpoint as ocp\n"
        "from monolith_jax.checkpoint.discovery import completed_step\n"
        "with ocp.CheckpointManager(sys.argv[1]) as manager:\n"
        "    manager.save(42, args=ocp.args.StandardSave({'w': jnp.ones(2)}))\n"
        "    manager.wait_until_finished()\n"
        "print('step', completed_step(sys.argv[1]))\n"
    )
    environment = {
        "TENSORSTORE_GCS_HTTP_URL": gcs.endpoint,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        done = subprocess.run(
            [sys.executable, "-c", script, gcs / "run"],
            timeout=120,
            check=False,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("step 42")
