"""`monolith-jax train`."""

import argparse
from typing import Any

from monolith_jax.cli._cluster import add_cluster, join
from monolith_jax.cli._common import add_model_command, resolve, with_data
from monolith_jax.preemption import Preemption


def add(commands: Any) -> None:
    """Adds the command to the parser's commands."""
    command = add_model_command(
        commands, "train", _train, "train a model, or go on where a run in DIR stopped"
    )
    command.add_argument("--quiet", action="store_true", help="no progress on standard error")
    add_cluster(command)


def _train(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax train`."""
    preemption = Preemption().install()
    resolved = resolve(options, rest)
    if resolved is None:
        return 0
    name, params, task = resolved
    join(options)
    from monolith_jax.training import train

    task = with_data(params, task)
    train(task, options.model_dir, name=name, preemption=preemption, show=not options.quiet)
    return preemption.exit_code if preemption.requested else 0
