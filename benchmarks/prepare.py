"""The host's half of a step: deduplicating a batch's ids, split between hosts and workers.

26 ids for each of 1,024 examples a device, few of them frequent, over tables of 100,000 rows each
(`planning.weak_scaling`), for a run of hosts with 8 devices each; no device is needed. Every host
counts what all pairs of devices ask each other for; ours then makes its own devices' part of the
lookups, theirs that of all. Further rows hold two workers, a batch each, against one.

    python -m benchmarks.prepare [--json FILE] [--quick]
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import _harness
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.embedding._prepare import Preparer
from monolith_jax.embedding._ragged import NARROW_DEVICES
from monolith_jax.embedding._stacks import Stack, build_stacks
from monolith_jax.input import prefetch

IDS, ROWS, DIM, PER_DEVICE, HOST, BATCHES = 26, 100_000, 16, 1024, 8, 4


def stack_of() -> Stack:
    """Returns the tables, which share an array."""
    names = [f"f{i}" for i in range(IDS)]
    tables = [TableConfig(name=name, vocab_size=ROWS, dim=DIM) for name in names]
    features = [FeatureConfig(name=name, table=name) for name in names]
    (stack,) = build_stacks(tables, features, 1024)
    return stack


def columns_of(batch: int) -> dict[str, np.ndarray]:
    """Returns one id for each feature and example."""
    rng = np.random.default_rng(0)
    return {f"f{i}": (ROWS * rng.random(batch) ** 2).astype(np.int64) for i in range(IDS)}


def preparer_of(stack: Stack, devices: int, here: int) -> Preparer:
    """Returns what prepares the part of the first `here` of so many devices."""
    ragged = [stack.name] if devices >= NARROW_DEVICES else []
    mine = np.arange(devices) < here
    batch = PER_DEVICE * devices
    return Preparer([stack], batch, devices, {stack.name: 1}, ragged=ragged, mine=mine)


def all_batches(prepare: Callable[[Any], Any], columns: Any, workers: int) -> None:
    """Prepares some batches, several at once."""
    with prefetch(lambda _: prepare(columns), 0, BATCHES, buffer=BATCHES, workers=workers) as made:
        for _ in made:
            pass


def main() -> None:
    """Runs the cases."""
    options = _harness.arguments(__doc__)
    stack, rows = stack_of(), []
    for devices in (8, 64) if options.quick else (8, 64, 512):
        columns = columns_of(PER_DEVICE * devices)
        ours, theirs = (preparer_of(stack, devices, here) for here in (HOST, devices))
        if devices > HOST:
            rows.append(
                _harness.compare(
                    f"{devices} devices, a host's part",
                    partial(ours, columns),
                    partial(theirs, columns),
                    theirs_name="the parts of all hosts",
                    repeats=3 if options.quick else 11,
                )
            )
        rows.append(
            _harness.compare(
                f"{devices} devices, {BATCHES} batches by two workers",
                partial(all_batches, ours, columns, 2),
                partial(all_batches, ours, columns, 1),
                theirs_name="by one",
                repeats=3 if options.quick else 7,
            )
        )
    _harness.report(rows, options.json)


if __name__ == "__main__":
    main()
