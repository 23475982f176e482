"""Runs of several processes: how they find each other, and the few words they exchange.

One process a host, all with the same command. On a Cloud TPU pod each learns its number and the
address of process 0 from the machine; elsewhere `--coordinator HOST:PORT --processes N
--process-id I` say it. Everything that leaves the devices (files, lines on the screen) is written
by process 0, the primary. In a run of one process every function here returns at once.

The words travel through jax's coordination service, not through the devices, so that they never
stand in the way of a step.
"""

from monolith_jax.distributed._cluster import Cluster
from monolith_jax.distributed._exchange import from_all, from_primary, is_primary
from monolith_jax.distributed._find import PORT, cloud_tpu, cluster_from
from monolith_jax.distributed._preemption import AgreedPreemption, agreed
from monolith_jax.distributed._shared import check_shared
from monolith_jax.distributed._start import check_devices, start
from monolith_jax.distributed._together import all_or_none, primary_first, primary_only

__all__ = [
    "PORT",
    "AgreedPreemption",
    "Cluster",
    "agreed",
    "all_or_none",
    "check_devices",
    "check_shared",
    "cloud_tpu",
    "cluster_from",
    "from_all",
    "from_primary",
    "is_primary",
    "primary_first",
    "primary_only",
    "start",
]
