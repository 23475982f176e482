"""A train step that takes what was compiled ahead of time, or says what differs."""

import time
from collections.abc import Callable
from typing import Any

import jax

from monolith_jax import config, storage
from monolith_jax.ahead import file
from monolith_jax.ahead.environment import differences, environment
from monolith_jax.ahead.loaded import Loaded
from monolith_jax.ahead.signature import digest, shapes_of
from monolith_jax.embedding._room import Room
from monolith_jax.errors import DataError

Say = Callable[[str], None]

_FEW = 8
"""Differences that are told in full."""


class SavedSteps:
    """Stands for a program's `train_step`: the same function, from a file where one matches.

    The first saved step for these versions and devices also gives the program room: batches that
    need no more than it holds are padded to its shapes. All others are compiled as ever.

    Args:
      program: `training.program.Program`; its `train_step` is to be replaced by this, and its
        engine is told the shapes, so before the first batch is prepared.
      name: the model's key.
      folder: of saved steps, local or gs://.
      say: takes the lines that tell what is taken or what differs.

    Raises:
      StorageError: there is no such folder, or it cannot be read.
    """

    def __init__(self, program: Any, name: str, folder: str, say: Say) -> None:
        self._program, self._jitted, self.say = program, program.train_step, say
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._by_shapes: dict[Any, Any] = {}
        here = environment(list(program.mesh.devices.flat))
        paths = [path for path in storage.list_files(folder) if path.endswith(file.SUFFIX)]
        told = [line for path in paths if (line := self._consider(path, name, here))]
        if self._files:
            header, _ = next(iter(self._files.values()))
            if header["room"]:
                program.engine.make_room(_rooms(header))
        else:
            for line in told or [f"{folder} has no step of {name}"]:
                say(line)
            say("the step is compiled here")

    def _consider(self, path: str, name: str, here: dict[str, str]) -> str:
        """Keeps a file if it is for this model and these devices, or returns why it is not."""
        try:
            header, packed = file.read(path)
            if header["model"] != name:
                return ""
            differ = differences(header["environment"], here)
        except (DataError, KeyError, AttributeError) as error:
            return f"{path} is not taken: {error}"
        if differ:
            return f"{path} is not taken: {_listed(differ)}"
        self._files[path] = header, packed
        return ""

    def __call__(self, state: Any, window: Any, batch: Any) -> Any:
        """Runs one step."""
        leaves, tree = jax.tree.flatten(batch)
        key = tree, *((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._by_shapes:
            self._by_shapes[key] = self.find((state, window, batch)) if self._files else None
        loaded = self._by_shapes[key]
        if loaded is None or not loaded.takes(state, window, batch):
            return self._jitted(state, window, batch)
        return loaded(state, window, batch)

    def find(self, arguments: tuple[Any, Any, Any]) -> Loaded | None:
        """Returns the saved step for a state, window and batch, arrays or shapes with shardings.

        Says that it is taken; or returns None and says what differs.
        """
        here = shapes_of(arguments)
        of_program, told = "", []
        for path, (header, _) in self._files.items():
            differ = differences(header["shapes"], here)
            if not differ:
                of_program = of_program or digest(self._jitted, arguments)
                if header["program"] == of_program:
                    return self._load(path, arguments)
            told.append(f"{path} is not taken: {_listed(self._reasons(header, differ))}")
        self.say("; ".join(told) + "; compiling")
        return None

    def _reasons(self, header: dict[str, Any], shapes: list[str]) -> list[str]:
        """Returns what makes another program of it: fields of the config, then shapes."""
        saved = _flat("", header["config"])
        here = _flat("", config.to_dict(self._program.task))
        found = [*differences(saved, here), *shapes]
        return found or [
            f"the program itself: saved by monolith-jax {header['monolith_jax']}; the code of the "
            "model or of the package is another here"
        ]

    def _load(self, path: str, arguments: tuple[Any, Any, Any]) -> Loaded | None:
        start = time.monotonic()
        header, packed = self._files[path]
        state, window = jax.eval_shape(self._jitted, *arguments)
        of_state, of_window = self._program.train_shardings()
        outputs = (
            jax.tree.map(_placed, state, of_state),
            jax.tree.map(lambda x: _placed(x, of_window), window),
        )
        inputs = [leaf.sharding for leaf in jax.tree.leaves(arguments)]
        try:
            payload = file.unpack(path, header, packed)
            loaded = Loaded(payload, tuple(self._program.mesh.devices.flat), inputs, outputs)
        except (DataError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self.say(f"{path} is not taken: {reason}; compiling")
            return None
        self.say(f"took {path}, loaded in {time.monotonic() - start:.1f} s instead of compiling")
        return loaded


def _placed(shape: Any, where: Any) -> jax.ShapeDtypeStruct:
    """Returns a shape that lies somewhere; `where`: a sharding, or one with a layout in memory."""
    sharding = getattr(where, "sharding", where)
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _rooms(header: dict[str, Any]) -> dict[str, Room]:
    return {
        name: Room(rows, None if send is None else (send[0], send[1]), lines)
        for name, (rows, send, lines) in header["room"].items()
    }


def _flat(path: str, value: Any) -> dict[str, str]:
    """Returns the leaves of JSON, by dotted path, as text.

    Example:
      >>> _flat("", {"a": {"b": 1}, "c": [2]})
      {'a.b': '1', 'c.0': '2'}
    """
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = ((str(i), part) for i, part in enumerate(value))  # type: ignore[assignment]
    else:
        return {path: str(value)}
    found: dict[str, str] = {}
    for name, part in items:
        found |= _flat(f"{path}.{name}" if path else name, part)
    return found


def _listed(lines: list[str]) -> str:
    more = f" and {len(lines) - _FEW} more" if len(lines) > _FEW else ""
    return "; ".join(lines[:_FEW]) + more
