"""What a chip sends in a train step as chips are added, its own batch staying the same.

    python -m monolith_jax.planning.weak_scaling [--quick] [--json FILE] [--dim 16]
        [--per-chip 1024] [--exchange auto|buckets|ragged] [--model deepfm|dlrm] [TOPOLOGY ...]

The step of a DeepFM (26 tables of 100,000 rows, one id each) is compiled for TPU slices of 8, 64
and 512 chips, without a TPU, on batches of ids few of which are frequent, prepared as in training.
Bytes are read off the compiled programs: the arrays of every collective, times the share that
leaves the chip (`monolith_jax.planning._hlo.sent_bytes`). Of a ragged all-to-all the program has
the room alone; what the busiest chip sends through it is in the sizes that the host hands it with
the batch, and both are printed. Needs libtpu: pip install 'monolith-jax[tpu]'; jaxlib 0.10 (Python
3.11) cannot print all of these programs.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from monolith_jax.planning import _hlo
from monolith_jax.planning.chips import chip_of
from monolith_jax.planning.topology import devices_of

SLICES = ("v5p:2x2x2", "v5p:4x4x4", "v5p:8x8x8")
QUICK = SLICES[:2]


def task_of(args: argparse.Namespace, devices: int) -> Any:
    """Returns Criteo's features with a model over them, and a batch that grows with the devices."""
    from monolith_jax.models import DeepFMConfig
    from monolith_jax.tasks.criteo import DLRM

    task = DLRM().task()
    tables = tuple(table.replace(dim=args.dim, vocab_size=args.rows) for table in task.tables)
    model = task.model.replace(bottom=(*task.model.bottom[:-1], args.dim))
    if args.model == "deepfm":
        names = tuple(feature.name for feature in task.features)
        model = DeepFMConfig(vectors=names, biases=(), hidden=(64, 32))
    size = task.input.replace(batch_size=args.per_chip * devices)
    train = task.train.replace(engine="xla")
    return task.replace(tables=tables, model=model, input=size, train=train)


def columns_of(task: Any) -> dict[str, np.ndarray]:
    """Returns one id for each feature and example: a few frequent ones, most of them rare."""
    rng = np.random.default_rng(0)
    sizes = {table.name: table.vocab_size for table in task.tables}
    batch = task.input.batch_size
    return {
        feature.source: (sizes[feature.table] * rng.random(batch) ** 2).astype(np.int64)
        for feature in task.features
    }


def measure(topology: str, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the row of one slice: bytes sent by a chip, by kind of collective."""
    from monolith_jax.embedding import XlaEngine
    from monolith_jax.training.program import AXIS, Program

    devices = devices_of(topology)
    chips = math.prod(chip_of(topology)[1])
    task = task_of(args, len(devices))
    program = Program(task, devices)
    program.engine = engine = XlaEngine(
        task.tables,
        task.features,
        batch_size=task.input.batch_size,
        mesh=program.mesh,
        axis=AXIS,
        exchange=args.exchange,
    )
    columns = columns_of(task)
    start = time.monotonic()
    lookups = engine.prepare(columns)
    prepared = time.monotonic() - start
    window = program.abstract_checkpoint()["window"]
    step = program.train_step.lower(program.abstract_state(), window, batch_of(program, lookups))
    done = step.compile()
    sent = _hlo.sent_bytes(_hlo.instructions(done.as_text()), len(devices))
    through = _through(engine, lookups)
    room = sent.get("ragged-all-to-all", 0.0)
    moved = sum(sent.values()) - room + (2 * through if room else 0.0)
    return {
        "case": topology,
        "chips": chips,
        "exchange": "ragged" if room else "buckets",
        "rows": _asked(lookups, len(devices)),
        "bytes": {kind: round(size) for kind, size in sent.items()},
        "room_bytes": round(sum(sent.values())),
        "moved_bytes": round(moved),
        "temporary": done.memory_analysis().temp_size_in_bytes,
        "prepare_s": round(prepared, 2),
    }


def batch_of(program: Any, lookups: Any) -> Any:
    """Returns the step's arguments beside the state, as shapes with shardings."""
    task = program.task
    by_row = program.engine.lookups_sharding(lookups)
    example = jax.tree.leaves(by_row)[0]
    size = task.input.batch_size
    shapes = {"dense": (size, len(task.dense)), "label": (size,), "weight": (size,)}
    floats = {
        name: jax.ShapeDtypeStruct(shape, np.float32, sharding=example)
        for name, shape in shapes.items()
    }
    asked = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        lookups,
        by_row,
    )
    return {**floats, "lookups": asked}


def _asked(lookups: Any, devices: int) -> int:
    """Returns the distinct rows that a chip's examples ask for, the mean of all chips."""
    from monolith_jax.embedding._none import NONE

    total = sum(
        int((np.asarray(sent) != NONE).sum())
        for one in lookups.values()
        for sent in (one.send, one.relay)
        if sent is not None
    )
    return total // devices


def _through(engine: Any, lookups: Any) -> float:
    """Returns the bytes that the busiest device sends through the ragged exchanges, one way."""
    total = np.zeros(engine.devices)
    for stack in engine.asking:
        if (parts := lookups[stack.name].parts) is not None:
            lines = parts[:, 1].sum(axis=1) - np.diagonal(parts[:, 1])
            total += lines * 4.0 * stack.layout.line_width
    return float(total.max())


def say(line: str) -> None:
    """Writes a line of the table at once: the next one may be minutes away."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Prints the table and the ratios of the largest to the smallest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topologies", nargs="*", help=f"default: {' '.join(SLICES)}")
    parser.add_argument("--quick", action="store_true", help="8 and 64 chips only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument("--model", choices=("deepfm", "dlrm"), default="deepfm")
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--per-chip", type=int, default=1024, help="examples of a chip")
    parser.add_argument("--rows", type=int, default=100_000, help="of each of the 26 tables")
    parser.add_argument("--exchange", choices=("auto", "buckets", "ragged"), default="auto")
    args = parser.parse_args()
    rows = []
    say("slice        chips  exchange  rows/chip   room MB  moved MB  temporary MB  prepare s")
    for topology in args.topologies or (QUICK if args.quick else SLICES):
        row = measure(topology, args)
        rows.append(row)
        say(
            f"{row['case']:12} {row['chips']:5}  {row['exchange']:8}  {row['rows']:9,}"
            f" {row['room_bytes'] / 1e6:9.2f} {row['moved_bytes'] / 1e6:9.2f}"
            f" {row['temporary'] / 1e6:13.1f} {row['prepare_s']:10.2f}",
        )
    for what in ("room_bytes", "moved_bytes"):
        values = [row[what] for row in rows]
        say(f"{what}: largest / smallest {max(values) / min(values):.3f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
