"""Where metrics go: `DIR/metrics.jsonl` and TensorBoard event files.

A row is `{"step", "split", ...metrics, "examples_per_second", "seconds"}`; split is "train" (the
steps since the row before) or "eval". After a restart the rows beyond the restored step are taken
back, since those steps are done again.
"""

import json
import os
from pathlib import Path
from typing import IO, Any

from monolith_jax import storage
from monolith_jax.errors import DataError

# What differs between two equal runs: everything else in a row is a function of config and data.
TIMES = ("seconds", "examples_per_second")


class MetricsFile:
    """`metrics.jsonl`, appended to row by row.

    Args:
      path: the file, local; see `mirror` for buckets.
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


def read_rows(path: storage.Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file, local or gs://; none if there is no such file.

    A last line that a kill cut short is left out.

    Raises:
      DataError: another line is not JSON, or no row: an object with an int `step`, a `split` and
        numbers. Names the file and the line.
    """
    try:
        lines = storage.read_bytes(path).decode(errors="replace").splitlines(keepends=True)
    except storage.NotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_row(line))
        except ValueError as error:
            if number < len(lines) or line.endswith("\n"):
                raise DataError(f"{path}, line {number}: {error}") from error
    return rows


def _row(line: str) -> dict[str, Any]:
    """Returns the row of a line.

    Raises:
      ValueError: it is none; says what it is.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"not a row of metrics, {{...}}, but {line.strip()[:80]}")
    kinds: dict[str, Any] = dict.fromkeys(row, (int, float)) | {"step": int, "split": str}
    for name, kind in kinds.items():
        if not isinstance(row.get(name), kind) or isinstance(row[name], bool):
            what = f"{row[name]!r}" if name in row else "missing"
            raise ValueError(f"not a row of metrics: {name!r} is {what:.80}")
    return row


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

    def flush(self) -> None:
        """Puts what was added into the event file."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()
