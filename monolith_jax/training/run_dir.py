"""A model dir: what it holds, whose it is, and whether a run may go on in it.

DIR/config.json      config, model name, versions, devices
DIR/checkpoints/     one folder a step
DIR/metrics.jsonl    one row a line
DIR/events.*         for TensorBoard
DIR/report.html      the curves, at the end
DIR/.lock            held while a run is in it, see `lock`

DIR is a local folder or gs://bucket/folder. An object of a bucket cannot be appended to, so there
the files that grow are written in a local folder and replaced whole: see `mirror`.
"""

import contextlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from monolith_jax import config, storage
from monolith_jax.errors import CheckpointError, ConfigError
from monolith_jax.task import TaskConfig

PACKAGES = ("monolith-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "numba")


class RunDir:
    """The model dir of one run.

    Args:
      path: a local folder or gs://bucket/folder; made by `open`.
      name: the model's key.
      task: its config.

    Attributes:
      path: the folder as a string; a local one is absolute.

    Raises:
      StorageError: `path` has another scheme, or no bucket.
    """

    def __init__(self, path: str, name: str, task: TaskConfig) -> None:
        if storage.is_gs(path):
            storage.split_gs(path)
            self.path = path.rstrip("/")
        else:
            self.path = str(Path(path).expanduser().absolute())
        self.name, self.task = name, task

    @property
    def checkpoints(self) -> str:
        """The folder of the checkpoints."""
        return f"{self.path}/checkpoints"

    @property
    def metrics(self) -> str:
        """The file of metrics."""
        return f"{self.path}/metrics.jsonl"

    def open(self) -> None:
        """Makes the folder and writes config.json, or checks that what is there is this run's.

        Raises:
          CheckpointError: the folder belongs to another model or another config (names the
            fields that differ), or cannot be written.
        """
        self.check()
        try:
            self._write_config()
        except storage.StorageError as error:
            cause = error.__cause__
            reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else error
            raise CheckpointError(f"{self.path} cannot be written: {reason}") from error

    def _write_config(self) -> None:
        document = {
            "model": self.name,
            "config": config.to_dict(self.task),
            "versions": {"python": platform.python_version()}
            | {package: metadata.version(package) for package in PACKAGES},
            "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        }
        text = json.dumps(document, indent=1) + "\n"
        storage.write_bytes(f"{self.path}/config.json", text.encode())

    def check(self) -> None:
        """Raises unless the folder is empty or this model's, with the same fixed fields."""
        file = f"{self.path}/config.json"
        if not storage.exists(file):
            if storage.is_gs(self.path):
                storage.list_folders(f"gs://{storage.bucket_of(self.path)}")  # is the bucket there?
            if storage.exists(self.checkpoints):
                raise CheckpointError(f"{self.path} has checkpoints but no config.json")
            return
        document = self._read(file)
        if document["model"] != self.name:
            raise CheckpointError(
                f"{self.path} is the model dir of {document['model']}, not of {self.name}"
            )
        differ = config.differences(
            _fixed(document["config"], self.task), config.to_dict(self.task, fixed_only=True)
        )
        if differ:
            raise CheckpointError(
                f"{self.path} was trained with another config: {'; '.join(differ)}. "
                "Take the old values, or a new --model-dir"
            )

    def _read(self, file: str) -> dict[str, Any]:
        try:
            document = json.loads(storage.read_bytes(file))
            return {"model": document["model"], "config": document["config"]}
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} cannot be read: {error!r}") from error


def _fixed(document: Any, task: TaskConfig) -> Any:
    """Returns the stored config without the fields that may change when a run goes on.

    Read back into configs where it can be, so that a field that the package did not have yet when
    it was stored counts with its default.
    """
    # One that holds a repr, or a field that is gone, is compared as it stands.
    with contextlib.suppress(ConfigError):
        return config.to_dict(config.from_dict(document), fixed_only=True)
    free = {info.path for info in config.describe(task) if info.restart == "free"}
    return _without(document, free, "")


def _without(document: Any, free: set[str], prefix: str) -> Any:
    if isinstance(document, dict):
        return {
            key: _without(value, free, f"{prefix}{key}.")
            for key, value in document.items()
            if f"{prefix}{key}" not in free
        }
    if isinstance(document, list):
        return [
            _without(item, free, f"{prefix}{item['name']}." if _named(item) else prefix)
            for item in document
        ]
    return document


def _named(item: Any) -> bool:
    return isinstance(item, dict) and "name" in item
