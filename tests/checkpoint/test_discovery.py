"""The newest complete checkpoint: TensorFlow's names, orbax's folders, and what is neither."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from monolith_jax import storage
from monolith_jax.checkpoint.discovery import completed_step, native_step, tf_step


def save(folder: Path, *steps: int) -> None:
    """Saves real native checkpoints."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(folder) as manager:
        for step in steps:
            manager.save(step, args=ocp.args.StandardSave({"w": jnp.ones(2)}))
        manager.wait_until_finished()


def test_nothing_there_is_step_zero(tmp_path: Path) -> None:
    assert completed_step(tmp_path) == 0
    assert completed_step(tmp_path / "missing") == 0
    assert completed_step(f"{tmp_path}/") == 0


def test_tensorflows_meta_files(tmp_path: Path) -> None:
    for name in ("-5.meta", "-30.meta", "-100.meta", "-100.index", "-200.index", ".meta"):
        storage.write_bytes(tmp_path / f"model.ckpt{name}", b"")
    assert completed_step(tmp_path) == tf_step(tmp_path) == 100
    assert native_step(tmp_path) == 0


@pytest.mark.parametrize(
    "name",
    [
        "model.ckpt-x.meta",
        "model.ckpt-temp-7.meta",
        "model.ckpt-7.meta.tmp",
        "model.ckpt-7.meta/inner",
        "model.ckpt_old/model.ckpt-7.meta",
        "other/model.ckpt-7.meta",
        "my_model.ckpt-7.meta",
    ],
)
def test_names_that_only_look_like_checkpoints(tmp_path: Path, name: str) -> None:
    """The original dies on some of these, and counts others that lie deeper."""
    storage.write_bytes(tmp_path / name, b"")
    assert completed_step(tmp_path) == 0


def test_native_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 9, 10)
    assert completed_step(tmp_path) == native_step(tmp_path) == 10
    assert tf_step(tmp_path) == 0


def test_native_checkpoints_in_a_model_dir_beside_tensorflows(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 12)
    storage.write_bytes(tmp_path / "model.ckpt-11.meta", b"")
    assert completed_step(tmp_path) == 12
    storage.write_bytes(tmp_path / "model.ckpt-13.meta", b"")
    assert completed_step(tmp_path) == 13


def test_unfinished_and_other_folders_do_not_count(tmp_path: Path) -> None:
    save(tmp_path, 3)
    storage.write_bytes(tmp_path / "7.orbax-checkpoint-tmp-1/_CHECKPOINT_METADATA", b"{}")
    storage.write_bytes(tmp_path / "20200501/part-0", b"")  # data, not step 20,200,501
    storage.write_bytes(tmp_path / "8", b"a file")
    storage.write_bytes(tmp_path / "٩/_CHECKPOINT_METADATA", b"{}")
    assert completed_step(tmp_path) == 3
