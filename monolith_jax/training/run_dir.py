"""A model dir: what it holds, whose it is, and whether a run may go on in it.

DIR/config.json      config, model name, versions, devices
DIR/checkpoints/     one folder a step
DIR/metrics.jsonl    one row a line
DIR/events.*         for TensorBoard
DIR/report.html      the curves, at the end
"""

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from monolith_jax import config
from monolith_jax.errors import CheckpointError, ConfigError
from monolith_jax.task import TaskConfig

PACKAGES = ("monolith-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "numba")


class RunDir:
    """The model dir of one run.

    Args:
      path: a local folder; made by `open`.
      name: the model's key.
      task: its config.

    Raises:
      ConfigError: `path` is a gs:// address, which is not supported yet.
    """

    def __init__(self, path: str, name: str, task: TaskConfig) -> None:
        if "://" in path:
            raise ConfigError(f"--model-dir {path}: a model dir has to be a local folder for now")
        self.path = Path(path).expanduser().absolute()
        self.name, self.task = name, task

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The file of metrics."""
        return self.path / "metrics.jsonl"

    def open(self) -> None:
        """Makes the folder and writes config.json, or checks that what is there is this run's.

        Raises:
          CheckpointError: the folder belongs to another model or another config (names the
            fields that differ), or cannot be written.
        """
        self.check()
        try:
            self._write_config()
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be written: {error.strerror}") from error

    def _write_config(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        document = {
            "model": self.name,
            "config": config.to_dict(self.task),
            "versions": {"python": platform.python_version()}
            | {package: metadata.version(package) for package in PACKAGES},
            "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        }
        temporary = self.path / "config.json.tmp"
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        os.replace(temporary, self.path / "config.json")

    def check(self) -> None:
        """Raises unless the folder is empty or this model's, with the same fixed fields."""
        file = self.path / "config.json"
        if not file.exists():
            if self.checkpoints.exists():
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

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            document = json.loads(file.read_text())
            return {"model": document["model"], "config": document["config"]}
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} cannot be read: {error!r}") from error


def _fixed(document: Any, task: TaskConfig) -> Any:
    """Returns the stored config without the fields that may change when a run goes on."""
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
