"""`monolith.core.util`: gs:// files, the position at a restart, ranges of dates.

The names and arguments are Monolith's, misspellings included; what they do is in
`monolith_jax.storage`, `monolith_jax.input.dates`, `monolith_jax.input.file_counts`,
`monolith_jax.input.shards` and `monolith_jax.checkpoint.discovery`. Every path may be gs:// or
local.

Example:
  >>> from monolith_jax.core import util
  >>> util.get_bucket_name_and_relavite_path("gs://bucket/a/b")
  ('bucket', 'a/b')
"""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import jax

from monolith_jax import storage
from monolith_jax.checkpoint import discovery
from monolith_jax.input import dates, file_counts, shards

__all__ = [
    "calculate_shard_skip_file_number",
    "download_gcs_file",
    "download_gcs_file_with_relative_path",
    "get_bucket_name_and_relavite_path",
    "get_checkpoint_completed_step_number",
    "get_per_file_example_numbers_for_checkpoint_reload",
    "list_gcs_files_with_prefix",
    "parse_example_number_meta_file",
    "range_dateset",
    "update_params",
]


def get_bucket_name_and_relavite_path(gs_file_path: str) -> tuple[str, str]:
    """Splits gs://bucket/name into (bucket, name). See `storage.split_gs`."""
    return storage.split_gs(gs_file_path)


def download_gcs_file(gs_file_path: storage.Path, local_file_name: storage.Path) -> None:
    """Copies a file to a local file, complete or not at all. See `storage.download`."""
    storage.download(gs_file_path, local_file_name)


def download_gcs_file_with_relative_path(
    bucket_name: str, gs_file_relative_path: str, local_file_name: storage.Path
) -> None:
    """Copies a bucket's file, or with an empty bucket name a local one, to a local file."""
    storage.download(storage.in_bucket(bucket_name, gs_file_relative_path), local_file_name)


def list_gcs_files_with_prefix(
    gs_path_prefix: storage.Path,
) -> tuple[str, Iterator[storage.FileInfo]]:
    """Returns the bucket ("" for local files) and the files whose path begins with the prefix.

    Each file has `.name`, its path in the bucket, and `.size`. See `storage.list_prefix`.
    """
    return storage.bucket_of(gs_path_prefix), iter(storage.list_prefix(gs_path_prefix))


def parse_example_number_meta_file(
    meta_file: storage.Path, seperator: str
) -> list[tuple[str, int]]:
    """Reads a meta file: names and numbers of examples. See `file_counts.parse_meta`."""
    return file_counts.parse_meta(meta_file, seperator)


def calculate_shard_skip_file_number(
    file_example_number: Sequence[int],
    shard_num: int,
    completed_steps_number: int,
    batch_size_per_core: int,
    devices_per_host: int | None = None,
) -> list[int]:
    """Returns how many of its files each shard (host) has finished. See `shards.shard_positions`.

    Args:
      file_example_number: examples in each file; file i is shard i mod shard_num's.
      shard_num: the number of hosts.
      completed_steps_number: steps done.
      batch_size_per_core: examples per device and step.
      devices_per_host: jax's number of local devices if None.
    """
    per_step = batch_size_per_core * (devices_per_host or jax.local_device_count())
    positions = shards.shard_positions(
        file_example_number, shard_num, completed_steps_number * per_step
    )
    return [position.files for position in positions]


def get_checkpoint_completed_step_number(checkpoint_path: storage.Path) -> int:
    """Returns the step of the newest checkpoint, 0 if there is none. See `checkpoint.discovery`."""
    return discovery.completed_step(checkpoint_path)


def update_params(params: MutableMapping[str, Any], tpu_cluster_resolver: Any = None) -> None:
    """Fills in batch sizes and the files to skip. See `shards.update_params`.

    Args:
      params: the job's parameters, changed in place.
      tpu_cluster_resolver: anything with TensorFlow's `cluster_spec().num_tasks("worker")`; the
        number of jax's processes if None.
    """
    shards.update_params(params, shards.num_hosts(tpu_cluster_resolver), jax.local_device_count())


def get_per_file_example_numbers_for_checkpoint_reload(
    train_dataset_path: storage.Path,
    file_example_number_meta: storage.Path,
    file_example_number_meta_seperator: str,
) -> list[int]:
    """Returns each training file's examples. See `file_counts.training_file_examples`."""
    return file_counts.training_file_examples(
        train_dataset_path, file_example_number_meta, file_example_number_meta_seperator
    )


def range_dateset(
    dataset: Any,
    root_path: storage.Path,
    start_date: dates.Date | None = None,
    end_date: dates.Date | None = None,
) -> Any:
    """Keeps the files of the dates from start to end, both included. See `dates.filter_dates`."""
    return dates.filter_dates(dataset, root_path, start_date, end_date)
