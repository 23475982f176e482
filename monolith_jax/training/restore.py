"""A checkpoint back into state and metrics, also one that differs in what may differ.

It may be of a version that knew fewer metrics, and have tables sharded in another way.
"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.errors import CheckpointError
from monolith_jax.task import TaskConfig
from monolith_jax.training import metrics
from monolith_jax.training.program import Program

_log = logging.getLogger(__name__)


def restore(
    checkpoints: Checkpoints, step: int, program: Program
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint onto the devices of a program.

    Sums of metrics that came later than the checkpoint (`metrics.LATER`) start at 0: the first row
    after it then counts them from here on. Tables that the checkpoint has in another `sharding`
    are read as they are there and laid out anew, which takes room for both. Everything else must
    be there.

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
    engine: Any = getattr(program.engine, "saved", program.engine)  # checkpoints have its form
    then = _as_stored(engine, program.task, checkpoints.run(step))
    if then is not engine:
        tables = then.abstract_saved()
        wanted["state"] = dataclasses.replace(wanted["state"], tables=tables)
    restored, run = checkpoints.restore(step, wanted)
    if then is not engine:
        tables = engine.resharded(restored["state"].tables, then)
        restored["state"] = dataclasses.replace(restored["state"], tables=tables)
    if late:
        _log.info("step %d has no sums of %s; they start at 0", step, ", ".join(late))
        zeros = program.empty_window()
        restored["window"] |= {name: zeros[name] for name in late}
    return restored, run


def _as_stored(engine: Any, task: TaskConfig, run: Mapping[str, Any]) -> Any:
    """Returns the engine, or one with the tables sharded as a checkpoint says that it has them.

    Raises:
      CheckpointError: the config that it has is none of ours.
    """
    if "config" not in run:
        return engine
    try:
        stored = {table["name"]: table.get("sharding", "mod") for table in run["config"]["tables"]}
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"a checkpoint's config does not list its tables: {error!r}"
        ) from None
    differ = [t for t in task.tables if stored.get(t.name, t.sharding) != t.sharding]
    if not differ:
        return engine
    for table in differ:
        was = stored[table.name]
        _log.info("table %s: from sharding %s to %s", table.name, was, table.sharding)
    return engine.with_sharding({t.name: stored.get(t.name, t.sharding) for t in task.tables})
