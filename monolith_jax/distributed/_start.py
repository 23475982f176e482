"""Joining the other processes, before jax looks for devices."""

import socket
from collections import Counter
from importlib import metadata

import jax

from monolith_jax.distributed import _rendezvous
from monolith_jax.distributed._cluster import Cluster
from monolith_jax.errors import UserError


def start(cluster: Cluster | None) -> None:
    """Joins the other processes; must run before jax looks for devices.

    Raises:
      UserError: who is missing, or where the coordinator was looked for and what to open; or
        hosts with unequal numbers of devices.
    """
    if cluster is None or cluster.processes == 1:
        return
    hello = {
        "process": cluster.process_id,
        "processes": cluster.processes,
        "host": socket.gethostname(),
        "versions": {name: metadata.version(name) for name in ("monolith-jax", "jax", "jaxlib")},
    }
    if cluster.process_id == 0:
        _rendezvous.gather(cluster.port, hello, cluster.timeout)
    else:
        _rendezvous.call(cluster.host, cluster.port, hello, cluster.timeout)
    # Its handler would take SIGTERM from `Preemption`, which knows evaluation and Ctrl-C too.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.processes,
        cluster.process_id,
        initialization_timeout=max(10, int(cluster.timeout)),
        shutdown_timeout_seconds=30,
    )
    check_devices()


def check_devices() -> None:
    """Raises unless every process has as many devices as the others.

    Raises:
      UserError: names the processes with their numbers of devices.
    """
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1 or len(counts) < jax.process_count():
        listed = ", ".join(
            f"process {process}: {counts.get(process, 0)}" for process in range(jax.process_count())
        )
        raise UserError(
            f"the hosts have unequal numbers of devices ({listed}); batch and tables are split "
            "evenly: give every host the same"
        )
