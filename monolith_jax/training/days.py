"""Later days: what a run whose days are done may go on with.

A run trains the days of its config `train.epochs` times. When new days have come, the same command
with these alone (`--input.start_date` after the last day trained) goes on in the same model dir:
with f steps done, step k draws batch k - f of the new days, which are gone through `train.epochs`
times in their turn. A day is trained by one such stretch and never again.

So each stretch is a run of its own that starts from the state of the one before, and stops and
goes on as exactly. Its checkpoints say `first_step` f, the fingerprint of its own days, and the
step at which it will be done.
"""

from collections.abc import Mapping
from typing import Any

from monolith_jax.errors import CheckpointError
from monolith_jax.input import Dataset
from monolith_jax.task import InputConfig


def first_step(
    where: str, step: int, run: Mapping[str, Any], source: InputConfig, data: Dataset
) -> int:
    """Returns the step that draws batch 0 of the data, for a run that goes on from a checkpoint.

    Args:
      where: the checkpoint, for the messages.
      step: its step.
      run: what belongs to it: `data`, `first_step`, `last_step`, `config`.
      source: the config's input now.
      data: its days.

    Raises:
      CheckpointError: the data are neither those it was trained on, nor later days after these
        were done; says which, and what to do.
    """
    then, now = run["data"], data.fingerprint()
    if then is None or then == now:  # None: it has seen no data of ours yet
        return int(run.get("first_step", 0))
    before = run["config"]["input"]
    days = f"the days {before['start_date']} to {before['end_date']}"
    if _day(source.start_date) <= _day(before["end_date"]):
        raise CheckpointError(
            f"{where} was trained on other data (fingerprint {then}, now {now}): on {days}, now "
            f"{source.start_date} to {source.end_date}, or files or counts have changed under "
            f"{source.root}. Later days go on when they are named alone: with --input.start_date "
            f"after {before['end_date']}"
        )
    last = run.get("last_step")
    if step != last:
        until = "" if last is None else f" of {last}"
        raise CheckpointError(
            f"{where}: {days} are not done, at step {step}{until}; go on with them first "
            f"(--input.start_date {before['start_date']} --input.end_date {before['end_date']})"
        )
    return step


def _day(text: str) -> str:
    """Returns YYYYMMDD of a date that was read before, in either of its forms."""
    return text.replace("-", "")
