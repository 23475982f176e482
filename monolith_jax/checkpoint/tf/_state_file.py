"""The file `checkpoint` beside the checkpoints: which is the newest, which are kept.

A CheckpointState in protocol-buffer text (tensorflow/python/training/checkpoint_state.proto).
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from monolith_jax import storage
from monolith_jax.checkpoint.tf._errors import blame
from monolith_jax.checkpoint.tf._index import index_path
from monolith_jax.checkpoint.tf._output import remove
from monolith_jax.checkpoint.tf._wire import Malformed
from monolith_jax.errors import CheckpointError

STATE_FILE = "checkpoint"
_MOST = 16 << 20
_TOKEN = re.compile(
    rb"\s+|#[^\n]*|(?P<name>[A-Za-z_]\w*)\s*:"
    rb"|(?P<string>\"(?:[^\"\\\n]|\\.)*+\"|'(?:[^'\\\n]|\\.)*+')"
    rb"|(?P<number>[-+]?[0-9.][-+0-9.eE]*)|[;,]"
)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_LETTERS = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))


@dataclass(frozen=True)
class StateFile:
    """What the state file says.

    Attributes:
      newest: the prefix of the newest checkpoint.
      kept: all that are kept, oldest first.
      timestamps: when each of `kept` was written, seconds since 1970; may be empty.
      last_preserved: when one was last kept for good, None if that is not said.
    """

    newest: str
    kept: tuple[str, ...] = ()
    timestamps: tuple[float, ...] = ()
    last_preserved: float | None = None


def read_state_file(folder: storage.Path) -> StateFile | None:
    """Returns what the state file of a folder says, None if there is none.

    Relative prefixes are joined to the folder.

    Raises:
      CheckpointError: it is damaged.
    """
    path = storage.join(folder, STATE_FILE)
    try:
        data = storage.read_bytes(path)
    except storage.NotFoundError:
        return None
    fields: dict[str, list[bytes]] = {}
    with blame(path):
        for name, value in _fields(data):
            fields.setdefault(name, []).append(value)
        if not fields.get("model_checkpoint_path"):
            raise Malformed("it names no model_checkpoint_path")
        times = tuple(map(_number, fields.get("all_model_checkpoint_timestamps", [])))
        last = [_number(value) for value in fields.get("last_preserved_timestamp", [])]
    kept = tuple(_absolute(folder, v) for v in fields.get("all_model_checkpoint_paths", []))
    newest = _absolute(folder, fields["model_checkpoint_path"][-1])
    return StateFile(newest, kept, times, last[-1] if last else None)


def write_state_file(
    prefix: storage.Path, *, max_to_keep: int = 5, timestamp: float | None = None
) -> StateFile:
    """Makes a checkpoint the newest, and deletes the oldest of those that the file names.

    Call it after the checkpoint is written. Paths are stored relative to the folder, so that it
    can be moved. The order is: the file, then the deletions, so that it never names one that is
    gone.

    Args:
      prefix: of a checkpoint that exists.
      max_to_keep: how many stay, this one included; 0 keeps all.
      timestamp: when it was written, seconds since 1970; now by default.

    Returns:
      What the file says now.

    Raises:
      CheckpointError: there is no such checkpoint, or the file cannot be read or written.

    Example:
      >>> import tempfile
      >>> from monolith_jax.checkpoint.tf import write_bundle
      >>> folder = tempfile.mkdtemp()
      >>> for step in (10, 20, 30):
      ...     prefix = storage.join(folder, f"model.ckpt-{step}")
      ...     write_bundle(prefix, {"global_step": step})
      ...     state = write_state_file(prefix, max_to_keep=2)
      >>> [kept.removeprefix(folder) for kept in state.kept]
      ['/model.ckpt-20', '/model.ckpt-30']
      >>> [path.removeprefix(folder) for path in storage.glob(folder + "/*.index")]
      ['/model.ckpt-20.index', '/model.ckpt-30.index']
    """
    newest = os.fspath(prefix)
    if not storage.exists(index_path(newest)):
        raise CheckpointError(f"{index_path(newest)}: no such checkpoint; write it first")
    folder = os.path.dirname(newest)
    before = read_state_file(folder) or StateFile("")
    times = dict(zip(before.kept, before.timestamps, strict=False))
    now = time.time() if timestamp is None else timestamp
    kept = [path for path in before.kept if path != newest] + [newest]
    dropped = kept[: max(len(kept) - max_to_keep, 0)] if max_to_keep > 0 else []
    kept = kept[len(dropped) :]
    stamps = tuple(now if path == newest else times.get(path, now) for path in kept)
    last = now if before.last_preserved is None else before.last_preserved
    state = StateFile(newest, tuple(kept), stamps, last)
    with blame(storage.join(folder, STATE_FILE)):
        storage.write_bytes(storage.join(folder, STATE_FILE), _encode(folder, state))
    for path in dropped:
        if os.path.dirname(path) == folder:  # never what another folder holds
            delete_bundle(path)
    return state


def delete_bundle(prefix: storage.Path) -> None:
    """Deletes a checkpoint: its index first, so that it is never seen incomplete."""
    base = os.fspath(prefix)
    with blame(base):
        remove(index_path(base))
        for info in storage.list_prefix(f"{base}.data-"):
            remove(info.path)
        remove(f"{base}.meta")


def _encode(folder: str, state: StateFile) -> bytes:
    lines = [f"model_checkpoint_path: {_quoted(folder, state.newest)}"]
    lines += [f"all_model_checkpoint_paths: {_quoted(folder, path)}" for path in state.kept]
    lines += [f"all_model_checkpoint_timestamps: {stamp!r}" for stamp in state.timestamps]
    lines.append(f"last_preserved_timestamp: {state.last_preserved!r}")
    return ("\n".join(lines) + "\n").encode()


def _quoted(folder: str, path: str) -> str:
    base = folder.rstrip("/") + "/" if folder else ""
    relative = path.removeprefix(base).encode("utf-8", "surrogateescape")
    out = "".join(
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
        for byte in relative
    )
    return f'"{out}"'


def _fields(data: bytes) -> Iterator[tuple[str, bytes]]:
    if len(data) > _MOST:
        raise Malformed(f"{len(data)} bytes are too many for a state file")
    at, name = 0, None
    while at < len(data):
        found = _TOKEN.match(data, at)
        if found is None:
            raise Malformed(f"it is no CheckpointState at byte {at}")
        at = found.end()
        if found["name"]:
            name = found["name"].decode()
        elif found["string"] or found["number"]:
            if name is None:
                raise Malformed(f"a value without a name ends at byte {at}")
            raw = found["string"]
            yield name, _ESCAPE.sub(_unescaped, raw[1:-1]) if raw else found["number"]


def _unescaped(found: re.Match[bytes]) -> bytes:
    octal, hexadecimal, letter = found.groups()
    if octal:
        return bytes([int(octal, 8) & 255])
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    return bytes([_LETTERS.get(letter[0], letter[0])])


def _number(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        raise Malformed(f"{value[:40]!r} is no number") from None


def _absolute(folder: storage.Path, value: bytes) -> str:
    path = value.decode("utf-8", "surrogateescape")
    if path.startswith(("/", "gs://")):
        return path
    return f"{os.fspath(folder).rstrip('/')}/{path}" if os.fspath(folder) else path
