"""`monolith-jax eval`."""

import argparse
import json
from typing import Any

from monolith_jax.cli._cluster import add_cluster, join
from monolith_jax.cli._common import add_model_command, keep_memory, resolve, with_data


def add(commands: Any) -> None:
    """Adds the command to the parser's commands."""
    command = add_model_command(
        commands, "eval", _eval, "evaluate a checkpoint on the days after training"
    )
    command.add_argument(
        "--step", type=int, metavar="N", help="the checkpoint's step; default: the newest"
    )
    add_cluster(command)


def _eval(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax eval`."""
    resolved = resolve(options, rest)
    if resolved is None:
        return 0
    name, params, task = resolved
    join(options)
    keep_memory(options)
    from monolith_jax.distributed import is_primary
    from monolith_jax.training import evaluate_checkpoint

    row = evaluate_checkpoint(with_data(params, task), options.model_dir, name, options.step)
    if is_primary():
        print(json.dumps(row))
    return 0
