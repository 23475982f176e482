"""Where metrics go: `DIR/metrics.jsonl`, TensorBoard event files, and the terminal.

A row is `{"step", "split", ...metrics, "examples_per_second", "seconds"}`; split is "train" (the
steps since the row before) or "eval". After a restart the rows beyond the restored step are taken
back, since those steps are done again.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

from monolith_jax.errors import DataError

# What differs between two equal runs: everything else in a row is a function of config and data.
TIMES = ("seconds", "examples_per_second")


class MetricsFile:
    """`metrics.jsonl`, appended to row by row.

    Args:
      path: the file.
      step: keep rows up to this step; later ones belong to steps that will be done again.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [row for row in read_rows(path) if row["step"] <= step]
        temporary = path.with_suffix(".jsonl.tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(temporary, path)
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row; it is in the file when this returns."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file; a last line that a kill cut short is left out.

    Raises:
      DataError: another line is not JSON; names the file and the line.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise DataError(f"{path}, line {number}: not JSON: {error}") from error
    return rows


class TensorBoard:
    """Event files for TensorBoard, one chart a metric, tagged `split/metric`."""

    def __init__(self, directory: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        # purge_step hides what an earlier, killed process wrote beyond the restored step.
        self._writer = SummaryWriter(str(directory), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Adds a row's numbers at its step."""
        for name, value in row.items():
            if name not in ("step", "split"):
                self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


class Progress:
    """Progress with speed and ETA: one line that renews itself on a terminal, plain lines else."""

    def __init__(self, total_steps: int, start_step: int, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._total, self._start_step = total_steps, start_step
        self._start = self._shown = time.monotonic()

    def step(self, step: int, examples_per_second: float) -> None:
        """Renews the line on a terminal, at most ten times a second."""
        now = time.monotonic()
        if not self._terminal or (now - self._shown < 0.1 and step < self._total):
            return
        self._shown = now
        self._stream.write(
            f"\r{self._position(step)}  {examples_per_second:,.0f} examples/s  "
            f"ETA {_clock(self._eta(step, now))}\x1b[K"
        )
        self._stream.flush()

    def row(self, row: dict[str, Any]) -> None:
        """Prints a row of metrics on a line of its own."""
        numbers = "  ".join(
            f"{name} {value:.4f}"
            for name, value in row.items()
            if name not in ("step", "split", "examples", *TIMES)
        )
        speed = f"{row['examples_per_second']:,.0f} examples/s"
        eta = f"ETA {_clock(self._eta(row['step'], time.monotonic()))}"
        self.say(f"{self._position(row['step'])}  {row['split']:5}  {numbers}  {speed}  {eta}")

    def say(self, text: str) -> None:
        """Prints a line, past the one that renews itself."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")
        self._stream.flush()

    def _position(self, step: int) -> str:
        return f"step {step:,}/{self._total:,} ({step / max(self._total, 1):.0%})"

    def _eta(self, step: int, now: float) -> float:
        done = step - self._start_step
        return (self._total - step) * (now - self._start) / done if done > 0 else 0.0


def _clock(seconds: float) -> str:
    """Returns seconds as h:mm:ss.

    Example:
      >>> _clock(3725.0)
      '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
