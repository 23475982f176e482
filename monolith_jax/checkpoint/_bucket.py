"""Native checkpoints in a bucket: staged on the local disk, uploaded, committed by a marker.

orbax could write to gs:// itself, but etils hands its file operations to TensorFlow's gfile
whenever TensorFlow is installed and to gcsfs's own retries otherwise: two behaviours, neither of
which gets past a connection that went silent or a body that was cut. So orbax writes to a folder
of this machine, and the files go through `monolith_jax.storage`, which checks lengths and crc32c.

    gs://.../checkpoints/<step>/...                    the files, as orbax wrote them
    gs://.../checkpoints/<step>/commit_success.txt     written last: without it there is no step

A step is deleted marker first, so that what a killed process leaves half deleted does not count.
The local disk (TMPDIR) holds one checkpoint at a time: its folder goes once it is uploaded.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from monolith_jax import storage

MARKER = "commit_success.txt"
_AT_ONCE = 8  # files on the wire
_PREFIX = "monolith-jax-"


def staging_folder() -> Path:
    """Makes a folder for what is on its way, only this user's, and removes dead processes' ones."""
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{_PREFIX}[0-9]*-*"):
        pid = left.name.split("-")[2]
        if pid.isdigit() and not _alive(int(pid)) and left.lstat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))


def committed(folder: str) -> list[int]:
    """Returns the steps that are complete in a bucket's folder, ascending; maybe none.

    Raises:
      StorageError: the bucket does not exist or may not be listed.
    """
    paths = [info.path for info in storage.list_prefix(f"{folder}/")]
    names = [path.removeprefix(f"{folder}/").split("/") for path in paths]
    marked = [parts[0] for parts in names if len(parts) == 2 and parts[1] == MARKER]
    return sorted(int(name) for name in marked if name.isascii() and name.isdigit())


def commit(local: Path, remote: str) -> None:
    """Uploads a finished local folder and writes its marker once all of it has arrived."""
    remove(remote)  # what an upload that was killed left there
    names = [str(path.relative_to(local)) for path in local.rglob("*") if path.is_file()]
    names = [name for name in names if name != MARKER]  # orbax has one of that name too
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: storage.upload(local / name, f"{remote}/{name}"), names))
    storage.write_bytes(f"{remote}/{MARKER}", json.dumps({"files": len(names)}).encode())


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


@contextmanager
def fetched(remote: str) -> Iterator[Path]:
    """Downloads a step's folder; gives the local copy's parent, which goes at the end."""
    folder = staging_folder()
    try:
        name = remote.rpartition("/")[2]
        storage.download_folder(remote, folder / name)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
