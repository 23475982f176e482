"""The train loop.

The order of operations, which exact resume rests on (tests/training/test_loop.py holds it):

    while steps are left and nobody asked to stop (in no process; all stop at one step):
        1. draw batch k           a function of the data, the seed and k alone
        2. step                   the state has now seen the batches 0 .. k
        3. log, if due            the window since the last log, read one step late
        4. evaluate, if due
        5. save, if due           before the next batch is drawn
    save

So a checkpoint of step k holds the state after exactly the batches 0 .. k - 1, every metric row up
to k is in the file before it, and going on means drawing batch k. Whether the evaluation of step k
is done is told by its row.

A state that was not trained here (`monolith-jax import-tf`) has seen none of these data: its
checkpoint of step f says `first_step` f, and step k draws batch k - f. So it is when a run goes on
with later days, see `days`.
"""

import contextlib
import time
from typing import Any

import jax

from monolith_jax import config, distributed
from monolith_jax.ahead import SavedSteps
from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.cpu_memory import use_huge_pages
from monolith_jax.errors import CheckpointError, DivergedError
from monolith_jax.input import Dataset, prefetch
from monolith_jax.preemption import Preemption
from monolith_jax.task import TaskConfig
from monolith_jax.training import metrics
from monolith_jax.training.data import ahead, evaluation_dataset, training_dataset
from monolith_jax.training.days import first_step
from monolith_jax.training.evaluation import evaluate
from monolith_jax.training.lock import held
from monolith_jax.training.program import Program, TrainState, devices_for
from monolith_jax.training.recorder import Recorder
from monolith_jax.training.report import write_report
from monolith_jax.training.restore import restore
from monolith_jax.training.run_dir import RunDir


def train(
    task: TaskConfig,
    model_dir: str,
    *,
    name: str = "model",
    preemption: Preemption | None = None,
    show: bool = True,
    compiled: str = "",
) -> dict[str, float]:
    """Trains a task, or goes on where an earlier run in `model_dir` stopped.

    Args:
      task: the config; `input.root` and the dates must be set.
      model_dir: the folder of checkpoints and metrics, see `run_dir`; several processes share it.
      name: the model's key, which the folder is bound to.
      preemption: the flag that ends the run early; default: SIGTERM and SIGINT set it.
      show: whether to print progress to standard error.
      compiled: a folder of steps that `monolith-jax plan --save` compiled; one that is for these
        devices is taken, else a line says what differs.

    Returns:
      The row of the last evaluation (step, split, metrics), empty if there was none.

    Raises:
      UserError: bad config, data or model dir; see the subclasses in `monolith_jax.errors`.
    """
    preemption = preemption or Preemption().install()
    preemption = distributed.agreed(preemption)
    run_dir = RunDir(model_dir, name, task)
    run_dir.check()
    program = Program(task, devices_for(task))
    data, eval_data = training_dataset(task), evaluation_dataset(task)
    distributed.check_shared(str(run_dir.path))
    with held(run_dir.path) as allowed:
        distributed.primary_only(run_dir.open)  # it writes, so not beside another trainer
        checkpoints = Checkpoints(
            run_dir.checkpoints, keep=task.train.keep_checkpoints, allowed=allowed
        )
        return _train(program, data, eval_data, run_dir, checkpoints, preemption, show, compiled)


def _train(
    program: Program,
    data: Dataset,
    eval_data: Dataset | None,
    run_dir: RunDir,
    checkpoints: Checkpoints,
    preemption: Preemption,
    show: bool,
    compiled: str,
) -> dict[str, float]:
    """Runs the loop in a model dir that is this run's alone."""
    told: list[str] = []
    if compiled:
        program.train_step = SavedSteps(program, run_dir.name, compiled, told.append)
    loop = Loop(program, data, eval_data, checkpoints, preemption)
    state, window, step = loop.start()
    recorder = Recorder(run_dir, step, loop.total, show, checkpoints.allowed)
    if compiled:
        program.train_step.say = recorder.say
    for line in told:
        recorder.say(line)
    try:
        loop.run(state, window, step, recorder)
        checkpoints.close()
    except OSError as error:
        raise CheckpointError(
            f"{run_dir.path}: {error}; the last good checkpoint: {checkpoints.last_good()}"
        ) from error
    except DivergedError as error:
        with contextlib.suppress(CheckpointError):
            checkpoints.close()  # the one on its way may be the last good one
        raise DivergedError(
            f"{error}; the last good checkpoint: {checkpoints.last_good()}"
        ) from error
    finally:
        recorder.close()
    if distributed.is_primary():
        write_report(run_dir.path, run_dir.name)
    return recorder.last


class Loop:
    """The loop's parts: the functions, the data, where checkpoints go, and what ends it early."""

    def __init__(
        self,
        program: Program,
        data: Dataset,
        eval_data: Dataset | None,
        checkpoints: Checkpoints,
        preemption: Preemption,
    ) -> None:
        self.program, self.task = program, program.task
        self.data, self.eval_data = data, eval_data
        self.checkpoints, self.preemption = checkpoints, preemption
        self.first = 0  # the step that draws batch 0
        self.total = self.task.train.epochs * data.steps_per_epoch

    def start(self) -> tuple[TrainState, metrics.Window, int]:
        """Returns state, metrics window and steps done: fresh, or from the newest checkpoint.

        Raises:
          CheckpointError: the checkpoint is damaged, or the data are not those it was made with.
        """
        steps = self.checkpoints.steps()
        step = distributed.from_primary(steps[-1] if steps else None)
        if step is None:
            return self.program.init(self.task.train.seed), self.program.empty_window(), 0
        restored, run = restore(self.checkpoints, step, self.program)
        where = str(self.checkpoints.directory / str(step))
        self.first = first_step(where, step, run, self.task.input, self.data)
        self.total += self.first
        return self.program.from_saved(restored["state"]), restored["window"], step

    def run(self, state: TrainState, window: metrics.Window, step: int, recorder: Recorder) -> None:
        """Trains from `step` to the end or until preempted, and saves."""
        recorder.say(self._headline(step))
        if self._evaluation_due(step) and not recorder.evaluated(step):
            self._evaluate(state, step, recorder)
        first = step
        with prefetch(self._batch, step, self.total, **ahead(self.task.input)) as batches:
            while step < self.total and not self.preemption.requested:
                _, batch = next(batches)
                previous = window
                state, window = self.program.train_step(state, window, batch)
                if step == first:  # from here on the tables stay where they are
                    use_huge_pages(state.tables)
                step += 1
                recorder.step(step)
                # The step before this one is done: the queue stays short, the device stays busy.
                jax.block_until_ready(previous["weight"])
                recorder.flush()
                if step % self.task.train.log_every == 0 or step == self.total:
                    recorder.window(step, window)
                    window = self.program.empty_window()
                if self._evaluation_due(step):
                    self._evaluate(state, step, recorder)
                if step % self.task.train.checkpoint_every == 0:
                    self._save(state, window, step, recorder)
        self._save(state, window, step, recorder)
        self.checkpoints.wait()
        recorder.say(self._farewell(step))

    def _batch(self, k: int) -> dict[str, Any]:
        return self.program.prepare(self.data.batch(k - self.first))

    def _evaluation_due(self, step: int) -> bool:
        every = self.task.train.eval_every
        at_end_of_epoch = (step - self.first) % self.data.steps_per_epoch == 0
        due = step % every == 0 if every else at_end_of_epoch
        return step > self.first and (due or step == self.total) and self.eval_data is not None

    def _evaluate(self, state: TrainState, step: int, recorder: Recorder) -> None:
        """Evaluates and records; a preemption ends it without a row, so that it is done again."""
        assert self.eval_data is not None
        recorder.flush()
        start = time.monotonic()
        values = evaluate(
            self.program,
            state,
            self.eval_data,
            stop=lambda: self.preemption.requested,
        )
        if values is not None:
            recorder.evaluation(step, values, time.monotonic() - start)

    def _save(
        self, state: TrainState, window: metrics.Window, step: int, recorder: Recorder
    ) -> None:
        recorder.flush()
        recorder.sync()
        run = {
            "step": step,
            "first_step": self.first,
            "last_step": self.total,
            "data": self.data.fingerprint(),
            "config": config.to_dict(self.task),
        }
        saved = self.program.to_saved(state)
        self.checkpoints.save(step, {"state": saved, "window": window}, run)

    def _headline(self, step: int) -> str:
        devices = self.program.mesh.devices.size
        kind = self.program.mesh.devices.flat[0].device_kind
        start = f"going on from step {step:,}" if step else "starting"
        return (
            f"{start}: {self.total:,} steps of {self.task.input.batch_size:,} examples, "
            f"{self.data.num_examples:,} examples an epoch, on {devices} x {kind}"
        )

    def _farewell(self, step: int) -> str:
        where = self.checkpoints.directory / str(step)
        if step < self.total:
            return f"stopped at step {step:,} and saved to {where}; the same command goes on"
        return f"done: step {step:,}, saved to {where}"
