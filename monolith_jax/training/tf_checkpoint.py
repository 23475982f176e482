"""A task's state out of TensorFlow's checkpoints, and back into them.

An import makes a native checkpoint at TensorFlow's step, from which `train` goes on. TensorFlow's
checkpoints do not say how far its input got, so training starts with the first batch of the task's
own days: choose them (`input.start_date`) as the days that TensorFlow has not seen.
"""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import jax

from monolith_jax import config, storage
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.checkpoint.tf import BundleWriter, open_bundle, write_state_file
from monolith_jax.checkpoint.tf.names import NameMap, Report, averages, entries, match
from monolith_jax.errors import CheckpointError
from monolith_jax.task import TaskConfig
from monolith_jax.training.lock import held
from monolith_jax.training.program import Program, TrainState, devices_for
from monolith_jax.training.restore import restore
from monolith_jax.training.run_dir import RunDir
from monolith_jax.training.tf_state import arrays_of, tf_variables, with_arrays

_MOST_STEPS = 2**31 - 1


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
      step: the step of the checkpoint, TensorFlow's.
      report: what matched, what did not.
      path: the native checkpoint; "" if none was to be written.
    """

    step: int
    report: Report
    path: str


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
      prefix: of the TensorFlow checkpoint.
      step: its step.
      names: TF's name of each tensor, by ours.
    """

    prefix: str
    step: int
    names: dict[str, str]


def compare_tf_checkpoint(
    task: TaskConfig, prefix: storage.Path, names: NameMap | None = None
) -> Report:
    """Returns what a TensorFlow checkpoint has of a task's state; nothing but its index is read.

    Raises:
      CheckpointError: there is no such checkpoint, or its index is damaged.
      ConfigError: `names` does not fit the task.
    """
    return _compare(_program(task), prefix, names or NameMap())


def _program(task: TaskConfig) -> Program:
    """Returns a task's functions; the state is as checkpoints have it, whatever engine trains."""
    train = dataclasses.replace(task.train, engine="xla")
    return Program(dataclasses.replace(task, train=train), devices_for(task))


def import_tf_checkpoint(
    task: TaskConfig,
    prefix: storage.Path,
    model_dir: str,
    *,
    name: str = "model",
    names: NameMap | None = None,
    partial: bool = False,
    step: int | None = None,
) -> Imported:
    """Makes a TensorFlow checkpoint the start of a model dir.

    The native checkpoint is complete or not there; an import that was cut off is done again.

    Args:
      task: the config to go on with.
      prefix: TensorFlow's checkpoint, local or gs://, without endings.
      model_dir: without checkpoints so far.
      name: the model's key, which the folder is bound to.
      names: how our variables are called there; default: as our paths.
      partial: what the checkpoint lacks starts as in a new run (weights from `train.seed`),
        instead of being an error.
      step: the steps done, for a checkpoint that does not say it; default: its `global_step`.

    Returns:
      The step and the report.

    Raises:
      CheckpointError: the checkpoint is damaged or lacks something, shapes or dtypes disagree
        (the message names the first few and what may be meant), or the folder is another run's.
      ConfigError: `names` does not fit the task.
      DivergedError: it holds values that are not finite.
    """
    run_dir = RunDir(model_dir, name, task)
    run_dir.check()
    program, names = _program(task), names or NameMap()
    report = _compare(program, prefix, names, without_step=step is not None)
    report.check(os.fspath(prefix), partial=partial)
    with open_bundle(prefix) as bundle:
        step = _step(bundle, report, step)
        state = with_arrays(program, program.init(task.train.seed), report.found, bundle.read, step)
    checkpoint = {"state": state, "window": program.empty_window()}
    run = {"step": step, "first_step": step, "data": None, "config": config.to_dict(task)}
    with held(run_dir.path) as allowed:
        _refuse_steps(run_dir)
        run_dir.open()
        keep = task.train.keep_checkpoints
        checkpoints = Checkpoints(run_dir.checkpoints, keep=keep, allowed=allowed)
        try:
            checkpoints.save(step, checkpoint, run)
            checkpoints.wait()
        finally:
            checkpoints.close()
    return Imported(step, report, f"{checkpoints.directory / str(step)}")


def _refuse_steps(run_dir: RunDir) -> None:
    checkpoints = Checkpoints(run_dir.checkpoints, read_only=True)
    steps = checkpoints.steps()
    checkpoints.close()
    if steps:
        raise CheckpointError(
            f"{run_dir.path} has checkpoints already, of the steps {steps}; "
            "import into a new --model-dir"
        )


def export_tf_checkpoint(
    task: TaskConfig,
    model_dir: str,
    prefix: storage.Path,
    *,
    name: str = "model",
    names: NameMap | None = None,
    step: int | None = None,
    max_to_keep: int = 0,
) -> Exported:
    """Writes a native checkpoint as a TensorFlow checkpoint, `PREFIX-STEP`.

    All that `tf.train.Saver` restores is there: values, slots, Adam's powers, `global_step`. The
    file `checkpoint` beside it names it as the newest, once it is complete.

    Args:
      task: the config, as it was trained.
      model_dir: the run's folder; nothing in it is changed.
      prefix: as for `tf.train.Saver.save`, local or gs://; the step is appended, unless it is
        there.
      name: the model's key.
      names: what our variables are to be called; default: as our paths.
      step: which checkpoint; default: the newest.
      max_to_keep: how many checkpoints that file keeps, whoever wrote them; the older ones are
        deleted. 0 keeps all.

    Returns:
      Where it is, and the names.

    Raises:
      CheckpointError: the folder is another run's or has no such checkpoint, or nothing can be
        written.
      ConfigError: `names` does not fit the task, or gives two different numbers one name.
    """
    RunDir(model_dir, name, task).check()
    program, names = _program(task), names or NameMap()
    made = entries(tf_variables(program), names)
    state, step = _restore(program, RunDir(model_dir, name, task), step)
    tail = f"-{step}"
    full = os.fspath(prefix) if os.fspath(prefix).endswith(tail) else f"{os.fspath(prefix)}{tail}"
    by_name = {entry.tf: entry for entry in made} | averages(made, names)
    read = arrays_of(program, state, made)
    with BundleWriter(full) as writer:
        for tf_name in sorted(by_name, key=lambda name: name.encode("utf-8", "surrogateescape")):
            writer.add(tf_name, read(by_name[tf_name]))
    write_state_file(full, max_to_keep=max_to_keep)
    return Exported(full, step, {entry.ours: entry.tf for entry in made})


def _compare(
    program: Program, prefix: storage.Path, names: NameMap, *, without_step: bool = False
) -> Report:
    wanted = entries(tf_variables(program), names)
    with open_bundle(prefix) as bundle:
        held = dict(bundle.entries)
    return match([e for e in wanted if not (without_step and e.kind == "step")], held, names)


def _step(bundle: Any, report: Report, given: int | None) -> int:
    """Returns the steps done: as given, or as the checkpoint says."""
    told = [found.tf for found in report.found if found.entry.kind == "step"]
    if given is None and not told:
        raise CheckpointError(f"{bundle.prefix} does not say its step: give it (--step N)")
    step = int(bundle.read(told[0])) if given is None else given
    if not 0 <= step <= _MOST_STEPS:
        raise CheckpointError(f"{bundle.prefix}: step {step} is not within 0 to {_MOST_STEPS}")
    return step


def _restore(program: Program, run_dir: RunDir, step: int | None) -> tuple[TrainState, int]:
    """Returns the state of a native checkpoint, the newest by default, and its step."""
    checkpoints = Checkpoints(str(run_dir.checkpoints), read_only=True)
    try:
        steps = checkpoints.steps()
        if not steps or (step is not None and step not in steps):
            wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{run_dir.path} has {wanted}; there are: {steps or 'none'}")
        step = steps[-1] if step is None else step
        restored, _ = restore(checkpoints, step, program)
    finally:
        checkpoints.close()
    return jax.block_until_ready(restored["state"]), step
