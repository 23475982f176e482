"""Checkpoints of the version before, with fewer metrics or another sharding, go on."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.errors import CheckpointError
from monolith_jax.preemption import Preemption
from monolith_jax.task import TaskConfig
from monolith_jax.training import metrics, train
from monolith_jax.training.program import Program, devices_for
from monolith_jax.training.restore import restore


@pytest.fixture(scope="module")
def program(task: TaskConfig) -> Program:
    return Program(task, devices_for(task))


def save(folder: str, program: Program, without: tuple[str, ...]) -> Checkpoints:
    """Saves step 3 of a run whose window has no sums of some names; the others are 2."""
    checkpoints = Checkpoints(folder)
    saved = jax.tree.map(
        lambda x: jax.device_put(np.full(x.shape, 2, x.dtype), x.sharding),
        program.abstract_checkpoint(),
    )
    for name in without:
        del saved["window"][name]
    checkpoints.save(3, saved, {"step": 3})
    checkpoints.wait()
    return checkpoints


def test_sums_that_a_checkpoint_lacks_start_at_zero(
    program: Program, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert set(metrics.LATER) <= set(program.empty_window())
    checkpoints = save(str(tmp_path), program, metrics.LATER)
    with caplog.at_level(logging.INFO):
        restored, run = restore(checkpoints, 3, program)
    assert "step 3 has no sums of overflowed; they start at 0" in caplog.text
    assert run == {"step": 3}
    empty = program.empty_window()
    assert jax.tree.structure(restored["window"]) == jax.tree.structure(empty)
    for name, value in restored["window"].items():
        assert value.sharding == empty[name].sharding
        np.testing.assert_array_equal(value, 0 if name in metrics.LATER else 2)
    for leaf in jax.tree.leaves(restored["state"]):
        np.testing.assert_array_equal(leaf, np.full(leaf.shape, 2, leaf.dtype))


def test_a_checkpoint_that_has_them_is_read_as_it_is(program: Program, tmp_path: Path) -> None:
    restored, _ = restore(save(str(tmp_path), program, ()), 3, program)
    assert all(np.all(value == 2) for value in restored["window"].values())


def test_any_other_array_must_be_there(program: Program, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="window/loss"):
        restore(save(str(tmp_path), program, ("loss",)), 3, program)


def test_the_arrays_of_a_bucket_are_named_too(
    program: Program, tmp_path: Path, gcs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    checkpoints = save(gcs / "run/checkpoints", program, metrics.LATER)
    restored, _ = restore(checkpoints, 3, program)
    checkpoints.close()
    assert float(restored["window"]["overflowed"]) == 0
    assert float(restored["window"]["loss"]) == 2


def test_a_run_goes_on_with_another_sharding(task: TaskConfig, tmp_path: Path) -> None:
    """Stopped with one, gone on with the other: the bits of a run that had one all along."""

    def sharded(how: Any, **train_options: Any) -> TaskConfig:
        tables = tuple(dataclasses.replace(table, sharding=how) for table in task.tables)
        options = dataclasses.replace(task.train, epochs=1, **train_options)
        return dataclasses.replace(task, tables=tables, train=options)

    class AfterThree(Preemption):
        polls = 3

        @property
        def requested(self) -> bool:
            self.polls -= 1
            return self.polls < 0

    train(sharded("mod"), str(tmp_path / "a"), preemption=AfterThree(), show=False)
    train(sharded("div"), str(tmp_path / "a"), preemption=Preemption(), show=False)
    # From the same first values: they are drawn where a row lies.
    train(sharded("mod"), str(tmp_path / "b"), preemption=Preemption(), show=False)
    ends = []
    for folder, how in (("a", "div"), ("b", "mod")):
        checkpoints = Checkpoints(str(tmp_path / folder / "checkpoints"), read_only=True)
        program = Program(sharded(how), devices_for(task))
        steps = checkpoints.steps()
        restored, _ = restore(checkpoints, steps[-1], program)
        state = restored["state"]
        tables = {t.name: program.engine.table_rows(state.tables, t.name) for t in task.tables}
        slots = {t.name: program.engine.table_slots(state.tables, t.name) for t in task.tables}
        ends.append((steps[-1], tables, slots, state.params, state.opt_state))
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_a_config_that_lists_no_tables_is_an_error(program: Program, tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(3, {"window": {"loss": jax.numpy.zeros(())}}, {"config": ["tables"]})
    checkpoints.wait()
    with pytest.raises(CheckpointError, match="config does not list its tables"):
        restore(checkpoints, 3, program)
