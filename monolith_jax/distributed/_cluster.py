"""Where the processes of a run meet, checked."""

from dataclasses import dataclass

from monolith_jax.distributed._messages import numbers
from monolith_jax.errors import ConfigError

_MOST_SECONDS = 1e6  # of a cluster's timeout; what the sockets and jax's service can count


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
                f"--process-id {self.process_id}: with --processes {self.processes}, valid "
                f"{'are' if self.processes > 1 else 'is'} {numbers(0, self.processes - 1)}"
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
