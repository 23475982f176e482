"""A checkpoint over an older one: whenever the writing ends, what is there is one of the two."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monolith_jax.checkpoint.tf import BundleWriter, _merge, _writer, merge_bundle, open_bundle
from monolith_jax.errors import CheckpointError


def _write(prefix: Path, shards: int, value: int) -> None:
    rows = np.full((4, 3), value, np.int32)
    for shard in range(shards):
        with BundleWriter(prefix, shard=shard, shards=shards) as writer:
            writer.add(f"own_{shard}", rows)
            writer.add_slice("table", (4 * shards, 3), np.s_[4 * shard : 4 * shard + 4], rows)
    if shards > 1:
        merge_bundle(prefix, shards)


def _values(prefix: Path) -> set[int]:
    """Returns all the values of a checkpoint; empty if there is none."""
    if not Path(f"{prefix}.index").exists():
        return set()
    with open_bundle(prefix) as bundle:
        return {int(value) for array in bundle.read_many().values() for value in np.unique(array)}


class Interrupted(Exception):
    """Stands for the end of the process."""


def _interrupt(patch: pytest.MonkeyPatch, after: int) -> list[str]:
    """Lets the step that comes after so many that change files raise; returns those done."""
    done: list[str] = []

    def wrapped(name: str, step: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            if len(done) == after:
                raise Interrupted
            done.append(name)
            step(*args)

        return run

    patch.setattr(_writer, "remove", wrapped("remove", _writer.remove))
    patch.setattr(_merge, "remove", wrapped("remove", _merge.remove))
    patch.setattr(_merge, "_publish", wrapped("publish", _merge._publish))
    patch.setattr(_writer.Output, "publish", wrapped("data", _writer.Output.publish))
    return done


@pytest.mark.parametrize("old", [1, 2, 3])
@pytest.mark.parametrize("new", [1, 2, 3])
def test_an_interrupt_at_any_step_leaves_the_old_or_the_new_or_none(tmp_path, old, new):
    outcomes = []
    for steps in range(40):
        prefix = tmp_path / str(steps) / "m"
        _write(prefix, old, 1)
        with pytest.MonkeyPatch.context() as patch:
            done = _interrupt(patch, steps)
            try:
                _write(prefix, new, 2)
                complete = True
            except Interrupted:
                complete = False
        outcomes.append(_values(prefix))
        assert outcomes[-1] in (set(), {1}, {2}), done
        _write(prefix, new, 3)  # and what an interrupt left is in nobody's way
        assert _values(prefix) == {3}
        names = {f"m.data-{i:05d}-of-{new:05d}" for i in range(new)} | {"m.index"}
        assert {path.name for path in prefix.parent.iterdir()} == names
        if complete:
            break
    assert complete
    assert [value for value in ({1}, set(), {2}) if value in outcomes] == [{1}, set(), {2}]


def test_the_first_finished_writer_ends_the_old_checkpoint(tmp_path):
    _write(tmp_path / "m", 2, 1)
    with BundleWriter(tmp_path / "m", shard=1, shards=2) as writer:
        writer.add("a", np.int32(2))
        assert _values(tmp_path / "m") == {1}
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        open_bundle(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"part-00000-of-00002"):
        merge_bundle(tmp_path / "m", 2)


def test_a_part_of_a_killed_run_does_not_pass_for_a_new_one(tmp_path):
    for shard in range(2):
        with BundleWriter(tmp_path / "m", shard=shard, shards=2) as writer:
            writer.add(f"own_{shard}", np.int32(1))
    with BundleWriter(tmp_path / "m", shard=0, shards=2) as writer:
        writer.add("own_0", np.int32(2))
        with pytest.raises(CheckpointError, match=r"part-00000-of-00002"):
            merge_bundle(tmp_path / "m", 2)


def test_files_of_others_stay(tmp_path):
    kept = [
        "m.data-00000-of-00002.bak",
        "m.meta",
        "mm.data-00000-of-00002",
        "m.assets",
        "m-1.index",
    ]
    for name in kept:
        (tmp_path / name).write_bytes(b"x")
    _write(tmp_path / "m", 2, 1)
    _write(tmp_path / "m", 1, 2)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(*kept, "m.index", "m.data-00000-of-00001")
    }


KILLED = """
import sys
from pathlib import Path
import numpy as np
from monolith_jax.checkpoint.tf import BundleWriter, merge_bundle
for step in range(1, 10_000):
    shards = 2 if step % 4 else 3
    for shard in range(shards):
        with BundleWriter(sys.argv[1], shard=shard, shards=shards) as writer:
            writer.add(f"own_{shard}", np.full(100_000, step, np.int32))
    merge_bundle(sys.argv[1], shards)
    print(step, flush=True)
"""


@pytest.mark.parametrize("round_", range(4))
def test_a_killed_run_of_several_writers_leaves_no_mixture(tmp_path, round_):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "m")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for _ in range(3 + round_):
            assert process.stdout.readline()
        time.sleep(0.003 * round_)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert len(_values(tmp_path / "m")) <= 1
    _write(tmp_path / "m", 2, 0)
    assert _values(tmp_path / "m") == {0}
