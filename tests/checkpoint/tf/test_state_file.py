"""The file `checkpoint`: how many checkpoints stay."""

from pathlib import Path

import pytest

from monolith_jax.checkpoint.tf import read_state_file, write_bundle, write_state_file


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 5])
def test_as_many_as_asked_for_stay_and_no_fewer(tmp_path: Path, keep: int) -> None:
    for step in range(1, 8):
        prefix = tmp_path / f"m-{step}"
        write_bundle(prefix, {"step": step})
        write_state_file(prefix, max_to_keep=keep)
        stay = [f"m-{s}" for s in range(1, step + 1)][-keep:]
        assert sorted(p.stem for p in tmp_path.glob("*.index")) == stay
        state = read_state_file(tmp_path)
        assert state is not None
        assert [Path(p).name for p in state.kept] == stay
