"""Where each host was in its files when a checkpoint was written, from counts of examples.

Monolith deals the files out: file i goes to host i mod hosts, each host reads its own in order, and
after a restart skips what it has read. These functions work that out from a meta file and the
number of steps done, for jobs that are set up this way (Monolith: `core/util.py`). Our own input
does not need it: `input.Dataset` keeps its exact position in the checkpoint.
"""

import logging
import numbers
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from monolith_jax.checkpoint.discovery import completed_step
from monolith_jax.errors import ConfigError, did_you_mean
from monolith_jax.input.file_counts import training_file_examples

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardPosition:
    """How far one host is in its own files.

    Attributes:
      files: how many of them, from the first, it has read to the end.
      examples: how many it has read of the one after these.
    """

    files: int
    examples: int


def shard_positions(
    file_examples: Sequence[int], num_shards: int, examples_per_shard: int
) -> list[ShardPosition]:
    """Returns where each of `num_shards` hosts is once each has read `examples_per_shard`.

    Args:
      file_examples: examples in each file, in the order of the files; file i is host i mod
        num_shards's.
      num_shards: the number of hosts, 1 or more.
      examples_per_shard: examples that each host has read, 0 or more.

    Returns:
      One position a host. A host that has read all of its files is at their end.

    Example:
      >>> shard_positions([10, 10, 10, 10], num_shards=2, examples_per_shard=15)
      [ShardPosition(files=1, examples=5), ShardPosition(files=1, examples=5)]
    """
    if num_shards < 1:
        raise ConfigError(f"{num_shards} shards: at least 1 is needed")
    if examples_per_shard < 0 or any(count < 0 for count in file_examples):
        raise ConfigError("numbers of examples cannot be negative")
    positions = []
    for shard in range(num_shards):
        files, left = 0, examples_per_shard
        own = file_examples[shard::num_shards]
        # Stops at the first file that is not finished: what lies after it has not been touched.
        while files < len(own) and own[files] <= left:
            left -= own[files]
            files += 1
        positions.append(ShardPosition(files, left if files < len(own) else 0))
    return positions


def batch_sizes(
    per_device: int | None, total: int | None, num_hosts: int, devices_per_host: int
) -> tuple[int, int]:
    """Returns (examples per device, examples of the whole batch) from one of the two, or both.

    Raises:
      ConfigError: neither is given, they disagree, or the batch cannot be divided evenly.

    Example:
      >>> batch_sizes(None, 1024, num_hosts=2, devices_per_host=4)
      (128, 1024)
    """
    devices = num_hosts * devices_per_host
    where = f"{num_hosts} hosts of {devices_per_host} devices"
    for name, value in (("batch_size_per_core", per_device), ("global_batch_size", total)):
        if value is None:
            continue
        if not isinstance(value, numbers.Real) or value != int(value) or value < 1:
            raise ConfigError(f"{name} {value!r}: a whole number from 1 is needed")
    if per_device is None and total is None:
        raise ConfigError("batch_size_per_core and global_batch_size can't be both None")
    if per_device is None and total is not None:
        if total % devices:
            raise ConfigError(f"global_batch_size {total} does not divide evenly over {where}")
        return int(total) // devices, int(total)
    assert per_device is not None
    if total is not None and per_device * devices != total:
        raise ConfigError(
            f"batch_size_per_core {per_device} on {where} makes {per_device * devices}, but "
            f"global_batch_size is {total}"
        )
    return int(per_device), int(per_device * devices)


def update_params(params: MutableMapping[str, Any], num_hosts: int, devices_per_host: int) -> None:
    """Fills in a job's batch sizes and, if it has a checkpoint, the files that each host skips.

    Sets `batch_size_per_core` and `global_batch_size` (each from the other), and, if there is a
    checkpoint in `model_dir`, `shard_skip_file_number`, from the files of `train_dataset_path` and
    their counts in the meta file `gcs_file_example_number`.

    Args:
      params: the job's parameters, changed in place.
      num_hosts: hosts that read files.
      devices_per_host: devices that each feeds.

    Raises:
      ConfigError: batch sizes that `batch_sizes` refuses, or a parameter that is missing.
      DataError: files and meta file do not go together; see `training_file_examples`.
    """
    per_device, total = batch_sizes(
        params.get("batch_size_per_core"),
        params.get("global_batch_size"),
        num_hosts,
        devices_per_host,
    )
    params["batch_size_per_core"], params["global_batch_size"] = per_device, total
    _log.info("batch size per device: %d, of the whole batch: %d", per_device, total)
    steps = completed_step(_need(params, "model_dir"))
    _log.info("steps done at the last checkpoint: %d", steps)
    if steps == 0:
        return
    counts = training_file_examples(
        _need(params, "train_dataset_path"), _need(params, "gcs_file_example_number")
    )
    positions = shard_positions(counts, num_hosts, per_device * devices_per_host * steps)
    params["shard_skip_file_number"] = [position.files for position in positions]
    _log.info("files that each host skips: %s", params["shard_skip_file_number"])


def num_hosts(cluster_resolver: Any = None) -> int:
    """Returns how many hosts read files: the resolver's workers, or jax's processes if it is None.

    Args:
      cluster_resolver: anything with TensorFlow's `cluster_spec().num_tasks("worker")`.

    Example:
      >>> num_hosts()
      1
    """
    if cluster_resolver is None:
        return jax.process_count()
    workers = int(cluster_resolver.cluster_spec().num_tasks("worker"))
    if workers != jax.process_count():
        _log.warning(
            "the cluster has %d workers, but jax runs in %d processes", workers, jax.process_count()
        )
    return workers


def _need(params: MutableMapping[str, Any], name: str) -> Any:
    if params.get(name) is None:
        raise ConfigError(f"the parameter {name} is missing; {did_you_mean(name, params)}")
    return params[name]
