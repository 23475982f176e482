"""A train step that takes what was compiled ahead of time, or says what differs."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from monolith_jax import config, distributed, storage
from monolith_jax.ahead import file
from monolith_jax.ahead.agreement import common, refusal
from monolith_jax.ahead.environment import differences, environment
from monolith_jax.ahead.loaded import Loaded
from monolith_jax.ahead.room import make_room, rooms_of
from monolith_jax.ahead.signature import digest, shapes_of
from monolith_jax.errors import DataError

Say = Callable[[str], None]

_FEW = 8
"""Differences that are told in full."""


class File(NamedTuple):
    """A file of a saved step: where it is, its header, and its program as it is kept there."""

    path: str
    header: dict[str, Any]
    packed: bytes


class SavedSteps:
    """Stands for a program's `train_step`: the same function, from a file where one matches.

    The first saved step for these versions and devices also gives the program room: batches that
    need no more than it holds are padded to its shapes. All others are compiled as ever. Several
    processes take the same step or none: what one of them has not, or is refused, none takes.

    Args:
      program: `training.program.Program`; its `train_step` is to be replaced by this, and its
        engine is told the shapes, so before the first batch is prepared.
      name: the model's key.
      folder: of saved steps, local or gs://.
      say: takes the lines that tell what is taken or what differs.

    Raises:
      StorageError: there is no such folder, or it cannot be read.
      UserError: or so in another process.
    """

    def __init__(self, program: Any, name: str, folder: str, say: Say) -> None:
        self._program, self._jitted, self.say = program, program.train_step, say
        self._by_shapes: dict[Any, Any] = {}
        found = distributed.all_or_none(lambda: self._suited(folder, name), "saved steps")
        self._files, told = common(*found)
        if self._files:
            make_room(program.engine, next(iter(self._files.values())).header["room"])
        else:
            for line in told or [f"no step of {name} is there for every process"]:
                say(line)
            say("the step is compiled here")

    def _suited(self, folder: str, name: str) -> tuple[dict[str, File], list[str]]:
        """Returns the files for this model and these devices, and lines on those that are not."""
        here = environment(list(self._program.mesh.devices.flat))
        here["engine"] = self._program.choice.name
        files: dict[str, File] = {}
        told = []
        for path in storage.list_files(folder):
            if not path.endswith(file.SUFFIX):
                continue
            try:
                header, packed = file.read(path)
                if header["model"] != name:
                    continue
                key = header["program"] + header["payload"]["sha256"]
                differ = differences(header["environment"], here)
            except (DataError, KeyError, AttributeError, TypeError) as error:
                told.append(f"{path} is not taken: {error}")
                continue
            if differ:
                told.append(f"{path} is not taken: {_listed(differ)}")
            else:
                files.setdefault(key, File(path, header, packed))
        return files, told if files or told else [f"{folder} has no step of {name}"]

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

        Says that it is taken; or returns None and says what differs, in this process or another:
        all of them call this alike, and get the same.
        """
        key, loaded, line = self._here(arguments)
        refused = refusal(key, line)
        self.say(f"{refused}; compiling" if refused else line)
        return None if refused else loaded

    def _here(self, arguments: tuple[Any, Any, Any]) -> tuple[str, Loaded | None, str]:
        """Returns the step that this process finds, by its key, and what to say of it."""
        here = shapes_of(arguments)
        room = _flat("room", rooms_of(self._program.engine, arguments[2]["lookups"]))
        of_program, told = "", []
        for key, saved in self._files.items():
            # What shapes tell, room tells again; of limits on SparseCores it tells alone.
            differ = differences(saved.header["shapes"], here)
            differ = differ or differences(_flat("room", saved.header["room"]), room)
            if not differ:
                of_program = of_program or digest(self._program, arguments)
                if saved.header["program"] == of_program:
                    loaded, line = self._load(saved, arguments)
                    return key if loaded else "", loaded, line
            reasons = self._reasons(saved.header, differ)
            told.append(f"{saved.path} is not taken: {_listed(reasons)}")
        return "", None, "; ".join(told)

    def _reasons(self, header: dict[str, Any], sizes: list[str]) -> list[str]:
        """Returns what makes another program of it: fields of the config, then shapes or limits."""
        saved = _flat("", header["config"])
        here = _flat("", config.to_dict(self._program.task))
        found = [*differences(saved, here), *sizes]
        return found or [
            f"the program itself: saved by monolith-jax {header['monolith_jax']}; the code of the "
            "model or of the package is another here"
        ]

    def _load(self, saved: File, arguments: tuple[Any, Any, Any]) -> tuple[Loaded | None, str]:
        start = time.monotonic()
        state, window = jax.eval_shape(self._jitted, *arguments)
        of_state, of_window = self._program.train_shardings()
        outputs = (
            jax.tree.map(_placed, state, of_state),
            jax.tree.map(lambda x: _placed(x, of_window), window),
        )
        inputs = [leaf.sharding for leaf in jax.tree.leaves(arguments)]
        try:
            payload = file.unpack(saved.path, saved.header, saved.packed)
            loaded = Loaded(payload, tuple(self._program.mesh.devices.flat), inputs, outputs)
        except (DataError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            return None, f"{saved.path} is not taken: {reason}"
        seconds = time.monotonic() - start
        return loaded, f"took {saved.path}, loaded in {seconds:.1f} s instead of compiling"


def _placed(shape: Any, where: Any) -> jax.ShapeDtypeStruct:
    """Returns a shape that lies somewhere; `where`: a sharding, or one with a layout in memory."""
    sharding = getattr(where, "sharding", where)
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


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
