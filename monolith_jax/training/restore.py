"""A checkpoint back into state and metrics, also one of a version that knew fewer metrics."""

import logging
from typing import Any

from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.training import metrics
from monolith_jax.training.program import Program

_log = logging.getLogger(__name__)


def restore(
    checkpoints: Checkpoints, step: int, program: Program
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint onto the devices of a program.

    Sums of metrics that came later than the checkpoint (`metrics.LATER`) start at 0: the first row
    after it then counts them from here on. Everything else must be there.

    Args:
      checkpoints: the run's.
      step: one of `checkpoints.steps()`.
      program: the task's functions.

    Returns:
      `{"state", "window"}` as `program.abstract_checkpoint()` has them, and the JSON values that
      belong to it.

    Raises:
      CheckpointError: it is damaged, or its arrays are not those of the program.
    """
    wanted = program.abstract_checkpoint()
    there = checkpoints.names(step)
    late = [name for name in metrics.LATER if f"window/{name}" not in there]
    wanted["window"] = {n: leaf for n, leaf in wanted["window"].items() if n not in late}
    restored, run = checkpoints.restore(step, wanted)
    if late:
        _log.info("step %d has no sums of %s; they start at 0", step, ", ".join(late))
        zeros = program.empty_window()
        restored["window"] |= {name: zeros[name] for name in late}
    return restored, run
