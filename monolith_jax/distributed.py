"""Runs of several processes: how they find each other, and the few words they exchange.

One process a host, all with the same command. On a Cloud TPU pod each learns its number and the
address of process 0 from the machine; elsewhere `--coordinator HOST:PORT --processes N
--process-id I` say it. Everything that leaves the devices (files, lines on the screen) is written
by process 0, the primary. In a run of one process every function here returns at once.

The words travel through jax's coordination service, not through the devices, so that they never
stand in the way of a step.
"""

import itertools
import json
import logging
import os
import socket
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

import jax

from monolith_jax import _rendezvous
from monolith_jax.errors import ConfigError, UserError
from monolith_jax.preemption import Preemption

_log = logging.getLogger(__name__)
T = TypeVar("T")

PORT = 8476
"""The port of process 0 on a Cloud TPU pod."""

EXCHANGE_SECONDS = 600.0
"""How long a word of another process is waited for; a host may still fetch its data."""

_MOST_SECONDS = 1e6  # of a cluster's timeout; what the sockets and jax's service can count

LAG = 4
"""Polls between the decision to stop and the stop; hosts are at most three polls apart."""

_counters: dict[str, "itertools.count[int]"] = {}


@dataclass(frozen=True)
class Cluster:
    """Where the processes of a run meet.

    Attributes:
      coordinator: HOST:PORT of process 0.
      processes: how many there are, one a host.
      process_id: this one's number, 0 to processes - 1.
      timeout: seconds that the others are waited for.

    Raises:
      ConfigError: an address without a port, or a number that is out of range.

    Example:
      >>> Cluster("10.0.0.2:8476", processes=4, process_id=1).port
      8476
    """

    coordinator: str
    processes: int
    process_id: int
    timeout: float = 300.0

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"--coordinator {self.coordinator!r}: expected HOST:PORT")
        if self.processes < 1:
            raise ConfigError(f"--processes {self.processes}: must be at least 1")
        if not 0 <= self.process_id < self.processes:
            raise ConfigError(
                f"--process-id {self.process_id}: with --processes {self.processes}, valid are 0 "
                f"to {self.processes - 1}"
            )
        if not 0 < self.timeout <= _MOST_SECONDS:
            raise ConfigError(
                f"--cluster-timeout {self.timeout}: must be above 0, and at most {_MOST_SECONDS:g}"
            )

    @property
    def host(self) -> str:
        """The address of process 0, without the port."""
        return self.coordinator.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port that must be open on process 0's host."""
        return int(self.coordinator.rpartition(":")[2])


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


def is_primary() -> bool:
    """Whether this process writes files and lines: process 0, or the only one."""
    return jax.process_index() == 0


def from_primary(value: T) -> T:
    """Returns process 0's value, anything JSON can hold; all processes must call it alike."""
    if jax.process_count() == 1:
        return value
    key = _key("primary")
    if is_primary():
        _client().key_value_set(key, json.dumps(value))
        return value
    found: T = json.loads(_wait(key, 0))
    return found


def from_all(value: T, channel: str = "all", seconds: float | None = None) -> list[T]:
    """Returns every process's value, in their order; all processes must call it alike.

    Args:
      value: anything JSON can hold.
      channel: a thread beside the main one takes one of its own, so that the words of the two are
        not taken for each other.
      seconds: how long the others are waited for; default: `EXCHANGE_SECONDS`.

    Raises:
      UserError: one did not answer.
    """
    if jax.process_count() == 1:
        return [value]
    key = _key(channel)
    _client().key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    return [json.loads(_wait(f"{key}/{i}", i, seconds)) for i in range(jax.process_count())]


def all_or_none(make: Callable[[], T], channel: str, seconds: float | None = None) -> T:
    """Calls `make` in every process and waits for all; if it fails in one, it fails in all.

    Arguments are those of `from_all`.

    Raises:
      UserError: what failed in another process, with its number. What fails in this one is
        raised as it is.

    Example:
      >>> all_or_none(lambda: 3, "doctest")  # one process
      3
    """
    if jax.process_count() == 1:
        return make()
    result, raised = None, None
    try:
        result = make()
    except Exception as error:  # whatever it is, the others must not wait for this process
        raised = error
    mine = None if raised is None else f"process {jax.process_index()}: {raised}"
    failed = next((why for why in from_all(mine, channel, seconds) if why), None)
    if raised is not None:
        raise raised
    if failed:
        raise UserError(failed)
    return result  # type: ignore[return-value]


def primary_first(make: Callable[[], T]) -> T:
    """Returns `make()`, called by process 0 before the others.

    What it puts on a shared disk is found there by them. If it fails in one, it fails in all.
    """
    if jax.process_count() == 1:
        return make()
    failed: str | None = None
    result, raised = None, None
    for mine in (True, False):
        if is_primary() == mine and not failed:
            try:
                result = make()
            except Exception as error:  # whatever it is, the others must not wait for this process
                failed = f"process {jax.process_index()}: {error}"
                raised = None if isinstance(error, UserError) else error
        failed = next((why for why in from_all(failed) if why), None)
    if raised is not None:
        raise raised
    if failed:
        raise UserError(failed)
    return result  # type: ignore[return-value]


def primary_only(make: Callable[[], object]) -> None:
    """Calls `make` in process 0; the others wait. If it fails there, it fails in all."""
    primary_first(lambda: make() if is_primary() else None)


def check_shared(folder: str) -> None:
    """Raises unless every process sees the files that process 0 writes to `folder`.

    Args:
      folder: a model dir; made by process 0 if it is missing.

    Raises:
      UserError: names the hosts that do not see it.
    """
    if jax.process_count() == 1:
        return
    from monolith_jax import storage

    mark = storage.join(folder, f".run-{from_primary(os.urandom(8).hex())}")
    why: str | None = None
    if is_primary():
        try:
            storage.write_bytes(mark, b"")
        except (OSError, UserError) as error:
            why = str(error)
    why = from_primary(why)
    if why:
        raise UserError(f"model dir {folder}: process 0 cannot write there: {why}")
    try:
        found = storage.exists(mark)
    except (OSError, UserError) as error:
        _log.warning("%s: %s", mark, error)
        found = False
    seen = from_all((socket.gethostname(), found))
    if is_primary():
        try:
            storage.delete(mark)
        except (OSError, UserError) as error:  # a file too many is no reason to leave the others
            _log.warning("%s: %s", mark, error)
    blind = [f"process {i} ({host})" for i, (host, found) in enumerate(seen) if not found]
    if blind:
        raise UserError(
            f"model dir {folder} is local: {', '.join(blind)} cannot see what process 0 "
            f"({seen[0][0]}) writes there. On several hosts it must be in a bucket (gs://), or on "
            "a file system that all of them mount"
        )


class AgreedPreemption(Preemption):
    """A flag that is raised in all processes at the same poll, once any of them got a signal.

    A process that got a signal says so; process 0 hears it at its next poll, number t, and
    announces that all stop at poll t + LAG. Processes poll `requested` at the same places of the
    same program, and what lies between two polls waits for the step before the last, so no two are
    more than three polls apart: everyone hears the announcement before it comes to that poll.

    Args:
      local: this process's own flag.
    """

    def __init__(self, local: Preemption) -> None:
        super().__init__()
        self._local = local
        self._polls = 0
        self._stop: int | None = None
        self._said = False
        self._prefix = _key("preemption")

    @property
    def requested(self) -> bool:
        """Whether all processes stop here; every call counts as a poll."""
        self._polls += 1
        client = _client()
        if self._local.requested and not self._said:
            client.key_value_set(f"{self._prefix}/asked", "1", allow_overwrite=True)
            self._said = True
        if self._stop is None:
            found = _try_get(f"{self._prefix}/stop")
            if found is not None:
                self._stop = int(found)
            elif is_primary() and _try_get(f"{self._prefix}/asked") is not None:
                self._stop = self._polls + LAG
                client.key_value_set(f"{self._prefix}/stop", str(self._stop))
        return self._stop is not None and self._polls >= self._stop


def agreed(preemption: Preemption) -> Preemption:
    """Returns the flag that all processes see alike; itself where there is one process."""
    return preemption if jax.process_count() == 1 else AgreedPreemption(preemption)


def _client() -> Any:
    # The only way to the service's keys and values; orbax takes it too.
    from jax._src.distributed import global_state

    assert global_state.client is not None
    return global_state.client


def _key(kind: str) -> str:
    """Returns a new key; the n-th call in one process is the n-th in every other."""
    return f"monolith_jax/{kind}/{next(_counters.setdefault(kind, itertools.count()))}"


def _try_get(key: str) -> str | None:
    try:
        return str(_client().key_value_try_get(key))
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def _wait(key: str, process: int, seconds: float | None = None) -> str:
    seconds = EXCHANGE_SECONDS if seconds is None else seconds
    try:
        return str(_client().blocking_key_value_get(key, int(seconds * 1000)))
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"process {process} did not answer process {jax.process_index()} within "
            f"{seconds:g} s: {str(error).splitlines()[0]}; see its own message"
        ) from error
