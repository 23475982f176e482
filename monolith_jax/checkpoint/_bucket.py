"""Native checkpoints in a bucket: what lies where, and when it counts.

    gs://.../checkpoints/<step>/state-<run>.index, .data-*   the arrays, a TensorFlow bundle
    gs://.../checkpoints/<step>/run.json                     what belongs to them
    gs://.../checkpoints/<step>/commit_success.txt           written last: without it there is no
                                                             step; names the bundle

<run> is drawn anew by every run, so that a process that outlived its run (its host was cut off)
cannot damage what the next run writes. A step is deleted marker first, so that what a killed
process leaves half deleted does not count.
"""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from monolith_jax import storage
from monolith_jax._process import Process, is_gone, this_process
from monolith_jax.errors import CheckpointError

MARKER = "commit_success.txt"
RUN = "run.json"
_PREFIX = "monolith-jax-"


def staging_folder() -> Path:
    """Makes a folder for what is on its way, only this user's, and removes dead processes' ones.

    Those of other machines, which may share the folder for temporary files, are left alone.
    """
    parent, me = Path(tempfile.gettempdir()), this_process()
    for left in parent.glob(f"{_PREFIX}{me.machine}-*-*-*"):
        pid, started = left.name.removeprefix(f"{_PREFIX}{me.machine}-").split("-")[:2]
        if pid.isdigit() and is_gone(Process(me.machine, int(pid), started)):
            with contextlib.suppress(FileNotFoundError):  # a process beside us was faster
                if left.lstat().st_uid == os.getuid():
                    shutil.rmtree(left, ignore_errors=True)
    name = f"{_PREFIX}{me.machine}-{me.pid}-{me.started}-"
    return Path(tempfile.mkdtemp(prefix=name, dir=parent))


def committed(folder: str) -> list[int]:
    """Returns the steps that are complete in a bucket's folder, ascending; maybe none.

    Raises:
      StorageError: the bucket does not exist or may not be listed.
    """
    paths = [info.path for info in storage.list_prefix(f"{folder}/")]
    names = [path.removeprefix(f"{folder}/").split("/") for path in paths]
    marked = [parts[0] for parts in names if len(parts) == 2 and parts[1] == MARKER]
    return sorted(int(name) for name in marked if name.isascii() and name.isdigit())


def commit(remote: str, bundle: str, run: dict[str, Any]) -> None:
    """Makes a step complete whose bundle is there under the name `bundle`."""
    storage.write_bytes(f"{remote}/{RUN}", json.dumps(run).encode())
    storage.write_bytes(f"{remote}/{MARKER}", json.dumps({"state": bundle}).encode())


def bundle_of(folder: storage.Path) -> str | None:
    """Returns the prefix of a complete step's bundle, None if it is of orbax's layout.

    Args:
      folder: the step's, in a bucket or where it was copied to.

    Raises:
      StorageError: it cannot be read.
      CheckpointError: its marker is damaged.
    """
    marker = storage.join(folder, MARKER)
    try:
        text = storage.read_bytes(marker)
    except storage.NotFoundError:
        return None
    try:
        name = json.loads(text)["state"]
    except (ValueError, KeyError, TypeError):
        return None  # orbax has a marker of that name too
    if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):
        raise CheckpointError(f"{marker}: {name!r} is no name of a bundle")
    return storage.join(folder, name)


def run_of(folder: storage.Path) -> dict[str, Any]:
    """Returns the JSON values of a complete step.

    Raises:
      CheckpointError: they are damaged.
    """
    path = storage.join(folder, RUN)
    try:
        run = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(run, dict):
        raise CheckpointError(f"{path}: no JSON object")
    return run


def remove(remote: str) -> None:
    """Deletes a step's folder, its marker first; there need be none."""
    if not storage.is_dir(remote):
        return
    if storage.exists(f"{remote}/{MARKER}"):
        storage.delete(f"{remote}/{MARKER}")
    if storage.is_dir(remote):
        storage.delete(remote, recursive=True)


def remove_unfinished(folder: str) -> None:
    """Deletes the steps of a bucket's folder that have no marker."""
    if not storage.is_dir(folder):
        return
    complete = committed(folder)
    for name in storage.list_folders(folder):
        if name.isascii() and name.isdigit() and int(name) not in complete:
            remove(f"{folder}/{name}")
