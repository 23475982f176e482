"""Records metrics: a window becomes a row one step late, in the file, TensorBoard and on screen.

Of several processes each reads the metrics, so that a loss that is not finite stops them all; only
process 0 writes and prints them.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from monolith_jax import distributed
from monolith_jax.errors import DivergedError
from monolith_jax.progress import Eta, ProgressLine
from monolith_jax.training import metrics
from monolith_jax.training.mirror import Mirror
from monolith_jax.training.run_dir import RunDir
from monolith_jax.training.writers import MetricsFile, TensorBoard, read_rows


class Recorder:
    """The metrics of one run.

    Args:
      run_dir: where they go.
      step: the step that the run goes on from; rows beyond it are taken back.
      total: the step that it goes to.
      show: whether to print progress.
      allowed: raises if this run may not write into its model dir any more, see `lock.held`.
    """

    def __init__(
        self,
        run_dir: RunDir,
        step: int,
        total: int,
        show: bool,
        allowed: Callable[[], None] = lambda: None,
    ) -> None:
        primary = distributed.is_primary()
        self._line = ProgressLine("steps") if show and primary else None
        self._total, self._eta = total, Eta(step / max(total, 1))
        self._loss = run_dir.task.loss
        self._batch_size = run_dir.task.input.batch_size
        self._mirror = Mirror(run_dir.path, allowed) if primary else None
        self._file = self._tensorboard = None
        if self._mirror is not None:
            self._file = MetricsFile(self._mirror.folder / "metrics.jsonl", step)
            self._tensorboard = TensorBoard(self._mirror.folder, step)
            self._mirror.publish()
        self._pending: tuple[int, metrics.Window] | None = None
        self._start, self._start_step = time.monotonic(), step
        self._mark = self._start
        rows = read_rows(run_dir.metrics) if primary else []
        evals = [row for row in rows if row["split"] == "eval"]
        self.last = distributed.from_primary(evals[-1] if evals else {})

    def evaluated(self, step: int) -> bool:
        """Whether the evaluation of `step` is recorded."""
        return self.last.get("step") == step

    def step(self, step: int) -> None:
        """Shows that a step was started."""
        if self._line is not None and self._line.terminal:
            seconds = max(time.monotonic() - self._start, 1e-9)
            rate = (step - self._start_step) * self._batch_size / seconds
            self._line.renew(f"{self._position(step)}  {self._speed(rate, step)}")

    def window(self, step: int, window: metrics.Window) -> None:
        """Takes a finished window; it is read at the next call of `flush`, a step later."""
        self._pending = (step, window)

    def flush(self) -> None:
        """Writes the row of the window that is waiting, if there is one.

        Raises:
          DivergedError: its loss is not finite.
        """
        if self._pending is None:
            return
        step, window = self._pending
        self._pending = None
        values = metrics.summarize(window, self._loss)
        if not math.isfinite(values.get("loss", 0.0)):
            raise DivergedError(f"step {step}: the training loss is {values['loss']}")
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        self._write(step, "train", values, seconds)

    def evaluation(self, step: int, values: dict[str, float], seconds: float) -> None:
        """Writes the row of an evaluation, and leaves its time out of the next row's speed."""
        self.flush()
        self._mark += seconds
        self.last = self._write(step, "eval", values, seconds)

    def sync(self) -> None:
        """Returns when every row is where it goes; before a checkpoint that must not outrun them.

        Raises:
          StorageError: the bucket of the model dir does not take them.
        """
        if self._mirror is not None and self._mirror.remote and self._tensorboard is not None:
            self._tensorboard.flush()
            self._mirror.publish()

    def say(self, text: str) -> None:
        """Prints a line, if progress is shown."""
        if self._line is not None:
            self._line.say(text)

    def close(self) -> None:
        """Closes the files."""
        for writer in (self._file, self._tensorboard):
            if writer is not None:
                writer.close()
        if self._mirror is not None:
            self._mirror.close()

    def _write(
        self, step: int, split: str, values: dict[str, float], seconds: float
    ) -> dict[str, Any]:
        rate = values["examples"] / max(seconds, 1e-9)
        row: dict[str, Any] = {"step": step, "split": split, **values}
        row |= {"examples_per_second": round(rate, 1), "seconds": round(seconds, 4)}
        for writer in (self._file, self._tensorboard):
            if writer is not None:
                writer.write(row)
        if self._mirror is not None and self._mirror.due():
            self.sync()
        numbers = "  ".join(
            f"{name} {value:.4f}"
            for name, value in values.items()
            if name != "examples" and "/" not in name  # a norm a table is for the plots
        )
        self.say(f"{self._position(step)}  {split:5}  {numbers}  {self._speed(rate, step)}")
        return row

    def _position(self, step: int) -> str:
        return f"step {step:,}/{self._total:,} ({step / max(self._total, 1):.0%})"

    def _speed(self, rate: float, step: int) -> str:
        return f"{rate:,.0f} examples/s  {self._eta.text(step / max(self._total, 1))}"
