"""The flags by which the processes of one run find each other."""

import argparse
from typing import Any


def add_cluster(command: Any) -> None:
    """Adds --coordinator, --processes, --process-id and --cluster-timeout to a command."""
    group = command.add_argument_group(
        "several hosts",
        "one process a host, the same command on all; a Cloud TPU pod needs none of these",
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="address of process 0, reachable from the others"
    )
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument(
        "--process-id", type=int, metavar="I", help="this process's number, 0 to N - 1"
    )
    group.add_argument(
        "--cluster-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for the others; default: 300",
    )


def join(options: argparse.Namespace) -> None:
    """Joins the other processes, if there are any; before jax looks for devices.

    Raises:
      ConfigError: flags that do not go together.
      UserError: a process that is missing or cannot be reached.
    """
    from monolith_jax import distributed

    distributed.start(
        distributed.cluster_from(
            options.coordinator, options.processes, options.process_id, options.cluster_timeout
        )
    )
