"""Which engine keeps a task's tables: where the chip has SparseCores and they can, they do."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from monolith_jax.embedding import XlaEngine
from monolith_jax.embedding.sparsecore import SparseCoreEngine, refusals, sparsecores_of
from monolith_jax.errors import ConfigError
from monolith_jax.task import TaskConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """An engine, and why.

    Attributes:
      name: "xla" or "sparsecore".
      reason: one line.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def engine_refusals(task: TaskConfig, devices: Sequence[Any]) -> tuple[str, ...]:
    """Returns why SparseCores cannot keep a task's tables, one line each; empty: they can."""
    found = list(refusals(task.tables, task.input.batch_size, devices[0], len(devices)))
    for name in ("clip_norm", "gradient_norms"):
        if value := getattr(task.train, name):
            found.append(
                f"train.{name} {value}: SparseCores sum and use the gradients of rows in one "
                "operation, where they cannot be measured"
            )
    return tuple(found)


def choose(task: TaskConfig, devices: Sequence[Any]) -> Choice:
    """Returns the engine that `train.engine` asks for, or with "auto" the one that serves.

    Raises:
      ConfigError: "sparsecore" is asked for and cannot serve; names each table and reason.

    Example:
      >>> import jax
      >>> from monolith_jax.tasks.movielens import DeepFM
      >>> choose(DeepFM().task(), jax.devices("cpu")[:1]).name
      'xla'
    """
    wanted = task.train.engine
    if wanted == "xla":
        return Choice("xla", "train.engine asks for it")
    reasons = engine_refusals(task, devices)
    if wanted == "sparsecore":
        if reasons:
            raise ConfigError(f"train.engine sparsecore cannot serve: {'; '.join(reasons)}")
        return Choice("sparsecore", "train.engine asks for it")
    if reasons:
        return Choice("xla", "; ".join(reasons))
    cores = sparsecores_of(devices[0])
    count = cores.count if cores else 0
    return Choice("sparsecore", f"{count} SparseCores of each device keep all tables")


def make_engine(task: TaskConfig, mesh: Mesh, axis: str) -> tuple[Any, Choice]:
    """Returns the engine of a task on a mesh, and why it is that one.

    Args:
      task: the config.
      mesh: the devices.
      axis: the mesh axis that batch and tables are split over.

    Raises:
      ConfigError: as `choose`.
    """
    devices = list(mesh.devices.flat)
    choice = choose(task, devices)
    if sparsecores_of(devices[0]):
        _log.info("engine %s", choice)
    kind: Any = SparseCoreEngine if choice.name == "sparsecore" else XlaEngine
    engine = kind(
        task.tables,
        task.features,
        batch_size=task.input.batch_size,
        mesh=mesh,
        axis=axis,
        seed=task.train.seed,
    )
    return engine, choice
