"""Where this process is to meet the others: by the flags, or by the machine it runs on."""

import logging
import os
import urllib.error
import urllib.request

from monolith_jax.distributed._cluster import Cluster
from monolith_jax.errors import ConfigError

_log = logging.getLogger(__name__)

PORT = 8476
"""The port of process 0 on a Cloud TPU pod."""


def cluster_from(
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    timeout: float = 300.0,
) -> Cluster | None:
    """Returns the cluster that the flags name, or the pod that this host belongs to, or None.

    Args:
      coordinator: HOST:PORT, or None.
      processes: their number, or None.
      process_id: this one's, or None.
      timeout: seconds to wait for the others.

    Raises:
      ConfigError: only some of the three are given.
    """
    given = {
        "--coordinator": coordinator,
        "--processes": processes,
        "--process-id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return cloud_tpu(timeout)
    if missing:
        raise ConfigError(f"{' and '.join(missing)} missing: {', '.join(given)} go together")
    assert coordinator is not None
    assert processes is not None
    assert process_id is not None
    return Cluster(coordinator, processes, process_id, timeout)


def cloud_tpu(timeout: float = 300.0) -> Cluster | None:
    """Returns the pod that this Cloud TPU host belongs to; None on one host, or anywhere else.

    Taken from TPU_WORKER_HOSTNAMES and TPU_WORKER_ID (GKE sets them), else from the metadata
    server's `worker-network-endpoints` and `agent-worker-number`, which is asked only where a TPU
    is attached. JAX_PLATFORMS without tpu, and TPU_SKIP_MDS_QUERY, turn it off.

    Raises:
      ConfigError: this host's number is none, or out of range.

    Example:
      >>> cloud_tpu() is None  # not a TPU pod
      True
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if (platforms and "tpu" not in platforms) or os.environ.get("TPU_SKIP_MDS_QUERY"):
        return None
    names, number = os.environ.get("TPU_WORKER_HOSTNAMES"), os.environ.get("TPU_WORKER_ID")
    source = "TPU_WORKER_ID"
    if not names or number is None:
        if not any(map(os.path.exists, ("/dev/accel0", "/dev/vfio/0"))):
            return None
        endpoints = _metadata("worker-network-endpoints")
        number, source = _metadata("agent-worker-number"), "the metadata's agent-worker-number"
        if not endpoints or number is None:
            return None
        # Each is "name:port:address".
        names = ",".join(one.split(":")[-1] for one in endpoints.split(","))
    hosts = [name.strip() for name in names.split(",") if name.strip()]
    if len(hosts) < 2:
        return None
    try:
        process_id = int(number)
    except ValueError:
        raise ConfigError(
            f"{source} {number!r} is no number of a host, 0 to {len(hosts) - 1}"
        ) from None
    if not 0 <= process_id < len(hosts):
        raise ConfigError(f"{source} {number} is none of the {len(hosts)} hosts {', '.join(hosts)}")
    return Cluster(f"{hosts[0]}:{PORT}", len(hosts), process_id, timeout)


def _metadata(key: str) -> str | None:
    """Returns an attribute of this machine, or None where there is no metadata server."""
    server = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/{key}",
        headers={"Metadata-Flavor": "Google"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5.0) as response:
            return str(response.read().decode())
    except (urllib.error.URLError, TimeoutError) as error:
        _log.debug("no %s in this machine's metadata: %s", key, error)
        return None
