"""The examples of a task: its days as datasets, and how their batches are prepared ahead."""

from monolith_jax._machine import usable_cores
from monolith_jax.errors import ConfigError
from monolith_jax.input import Dataset, find_files
from monolith_jax.task import InputConfig, TaskConfig

CORES_PER_WORKER, MOST_WORKERS = 4, 16
"""The step wants cores too, on the host as on a CPU backend, and every worker holds a batch."""


def training_dataset(task: TaskConfig) -> Dataset:
    """Returns the days to train on, shuffled as the config says.

    Raises:
      ConfigError: the root or a date is not set.
      DataError: no files in the range; says what was searched.
    """
    source = task.input
    return _dataset(task, source.start_date, source.end_date, "", source.shuffle_window)


def evaluation_dataset(task: TaskConfig) -> Dataset | None:
    """Returns the days to evaluate on in the order of time, or None if none are set."""
    source = task.input
    if not source.eval_start_date and not source.eval_end_date:
        return None
    return _dataset(task, source.eval_start_date, source.eval_end_date, "eval_", 0)


def ahead(source: InputConfig) -> dict[str, int]:
    """Returns how batches are prepared ahead, as `prefetch` takes it.

    Example:
      >>> ahead(InputConfig(buffer=2, workers=3))
      {'buffer': 3, 'workers': 3}
    """
    chosen = min(max(usable_cores() // CORES_PER_WORKER, 1), MOST_WORKERS)
    workers = source.workers or chosen
    return {"buffer": max(source.buffer, workers), "workers": workers}


def _dataset(task: TaskConfig, start: str, end: str, prefix: str, window: int) -> Dataset:
    source = task.input
    for name, value in (
        ("root", source.root),
        (f"{prefix}start_date", start),
        (f"{prefix}end_date", end),
    ):
        if not value:
            raise ConfigError(f"input.{name} is not set")
    return Dataset(
        find_files(source.root, start, end),
        task.schema(),
        batch_size=source.batch_size,
        seed=source.seed,
        shuffle_window=window,
        skip_damaged=source.skip_damaged,
        threads=source.threads,
    )
