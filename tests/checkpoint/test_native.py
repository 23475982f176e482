"""Native checkpoints: complete or invisible, finite, restored onto the devices at hand."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.errors import CheckpointError, DivergedError


def state(value: float = 1.0) -> dict[str, Any]:
    return {
        "table": jnp.full((16, 4), value, jnp.float32),
        "step": jnp.int32(3),
        "half": jnp.ones(2, "bfloat16"),
    }


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def saved(folder: Path, *steps: int, keep: int | None = None) -> Checkpoints:
    checkpoints = Checkpoints(str(folder), keep=keep)
    for step in steps:
        checkpoints.save(step, state(step), {"step": step})
    checkpoints.wait()
    return checkpoints


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    assert checkpoints.steps() == [1, 2]
    for step in (1, 2):
        restored, run = checkpoints.restore(step, abstract(state()))
        jax.tree.map(np.testing.assert_array_equal, restored, state(step))
        assert run == {"step": step}


def test_the_newest_are_kept(tmp_path: Path) -> None:
    assert saved(tmp_path, 1, 2, 3, 4, keep=2).steps() == [3, 4]


def test_a_step_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    checkpoints.save(1, state(9.0), {})
    checkpoints.wait()
    restored, _ = checkpoints.restore(1, abstract(state()))
    np.testing.assert_array_equal(restored["table"], state(1.0)["table"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_not_saved(tmp_path: Path, bad: float) -> None:
    checkpoints = saved(tmp_path, 1)
    with pytest.raises(DivergedError, match=r"step 2: \['table'\] holds values that are not"):
        checkpoints.save(2, state(bad), {})
    checkpoints.wait()
    assert checkpoints.steps() == [1]


def test_a_step_without_its_last_file_is_not_there(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2).close()
    (tmp_path / "2" / "_CHECKPOINT_METADATA").unlink()
    for marker in (tmp_path / "2").rglob("commit_success.txt"):
        marker.unlink()
    unfinished = tmp_path / "3.orbax-checkpoint-tmp-0"
    (tmp_path / "2").rename(unfinished)
    assert Checkpoints(str(tmp_path), read_only=True).steps() == [1]
    assert unfinished.exists()


def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path: Path) -> None:
    # One array: of several, tensorstore still reads the others when orbax gives up, and complains.
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(1, {"table": state()["table"]}, {})
    checkpoints.close()
    for file in (tmp_path / "1" / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=f"checkpoint {tmp_path}/1 cannot be restored"):
        Checkpoints(str(tmp_path), read_only=True).restore(1, abstract({"table": state()["table"]}))


@pytest.mark.parametrize("again", [False, True], ids=["the one that wrote", "another reader"])
def test_what_is_not_the_model_s_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    checkpoints = saved(tmp_path, 1)
    if again:
        checkpoints.close()
        checkpoints = Checkpoints(str(tmp_path), read_only=True)
    monkeypatch.setattr(checkpoints, "_restore", lambda *_: pytest.fail("it reads"))
    good, table = abstract(state()), jax.ShapeDtypeStruct((8, 4), jnp.float32)
    cases = [
        (good | {"table": table}, r"'table' has shape \(16, 4\), the model wants \(8, 4\)"),
        (good | {"half": jax.ShapeDtypeStruct((2,), jnp.float32)}, "'half' is bfloat16, the model"),
        ({"tabel": good["table"], "step": good["step"]}, "no 'tabel' in it; did you mean table"),
        ({"step": good["step"]}, r"the model has no 'half' \(and 1 more\), which is in it"),
    ]
    for wanted, message in cases:
        with pytest.raises(CheckpointError, match=message):
            checkpoints.restore(1, wanted)
    checkpoints.close()


def test_a_step_that_is_not_there_or_lost_its_metadata_is_named(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "1" / "state" / "_METADATA").unlink()
    for step in (1, 7):
        with pytest.raises(CheckpointError, match=f"checkpoint {tmp_path}/{step} cannot be rest"):
            Checkpoints(str(tmp_path), read_only=True).restore(step, abstract(state()))
    checkpoints.close()


def test_restoring_lands_on_the_mesh_at_hand(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    for devices in (2, 8):
        mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
        sharding = NamedSharding(mesh, P("data"))
        wanted = abstract(state()) | {
            "table": jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=sharding)
        }
        restored, _ = checkpoints.restore(1, wanted)
        assert restored["table"].sharding == sharding
        np.testing.assert_array_equal(restored["table"], state(1.0)["table"])


def test_donating_after_a_save_does_not_change_what_is_written(tmp_path: Path) -> None:
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    tree = {"large": jnp.zeros(5_000_000)}
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(0, tree, {})
    wanted = abstract(tree)
    for _ in range(5):
        tree = step(tree)
    checkpoints.wait()
    restored, _ = checkpoints.restore(0, wanted)
    assert float(jnp.max(jnp.abs(restored["large"]))) == 0.0
    assert float(tree["large"][0]) == 5.0


def test_a_reader_makes_no_folder(tmp_path: Path) -> None:
    assert Checkpoints(str(tmp_path / "none"), read_only=True).steps() == []
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"could not be written to .*/file/checkpoints"):
        Checkpoints(str(tmp_path / "file" / "checkpoints"))
