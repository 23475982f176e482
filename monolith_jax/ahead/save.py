"""Writes a compiled train step to a folder."""

import re
from typing import Any

import monolith_jax
from monolith_jax import config, storage
from monolith_jax.ahead import file
from monolith_jax.ahead.environment import environment
from monolith_jax.ahead.room import rooms_of
from monolith_jax.ahead.signature import digest, shapes_of


def save(
    folder: str,
    name: str,
    program: Any,
    arguments: tuple[Any, Any, Any],
    topology: str,
    compiled: Any,
) -> str:
    """Writes a step that was compiled for `program`'s devices, and returns the file's path.

    Args:
      folder: local or gs://; made as needed.
      name: the model's key.
      program: `training.program.Program`, over the devices of the topology.
      arguments: (state, window, batch), as shapes, that it was compiled for.
      topology: the devices' name, for people and the file's name.
      compiled: what jax compiled of `program.train_step` and these arguments.

    Raises:
      StorageError: it cannot be written; nothing is left half.
    """
    of_program = digest(program, arguments)
    devices = program.mesh.devices
    header = {
        "model": name,
        "topology": topology,
        "monolith_jax": monolith_jax.__version__,
        "environment": environment(list(devices.flat)) | {"engine": program.choice.name},
        "config": config.to_dict(program.task),
        "shapes": shapes_of(arguments),
        "room": rooms_of(program.engine, arguments[2]["lookups"]),
        "program": of_program,
    }
    plain = re.sub(r"[^\w.-]+", "-", f"{name}-{topology}")
    path = storage.join(folder, f"{plain}-{of_program[:12]}{file.SUFFIX}")
    file.write(path, header, compiled.runtime_executable().serialize())
    return path
