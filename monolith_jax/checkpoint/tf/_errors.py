"""Errors that say which file and which tensor."""

import contextlib
import os
from collections.abc import Iterator

from monolith_jax import storage
from monolith_jax.checkpoint.tf._wire import Malformed
from monolith_jax.errors import CheckpointError, nearest

_V1 = "in the format before V2 (TF 0.x); let TensorFlow restore it and save it again"


@contextlib.contextmanager
def blame(where: str) -> Iterator[None]:
    """Turns `Malformed` and a failed read into a CheckpointError that names `where`."""
    try:
        yield
    except Malformed as error:
        raise CheckpointError(f"{where}: {error}") from error
    except storage.StorageError as error:
        raise CheckpointError(f"{where}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{where}: {error.strerror or error}") from error


def no_bundle(prefix: str) -> CheckpointError:
    """Returns the error for a prefix without an index: what it is instead, or what lies near."""
    for tail in (".index", ".meta"):
        if prefix.endswith(tail):
            return CheckpointError(f"{prefix}: pass the prefix, {prefix.removesuffix(tail)}")
    if ".data-" in os.path.basename(prefix):
        return CheckpointError(f"{prefix}: pass the prefix, {prefix.rpartition('.data-')[0]}")
    folder, name = os.path.split(prefix)
    try:
        beside = storage.list_files(folder or ".", recursive=False)
        inside = storage.list_files(prefix, recursive=True) if storage.is_dir(prefix) else []
    except storage.StorageError:
        beside, inside = [], []
    if prefix in beside or any(path.startswith(f"{prefix}-00000-of-") for path in beside):
        return CheckpointError(f"{prefix}: a checkpoint {_V1}")
    found = [p.removesuffix(".index") for p in inside if p.endswith(".index")]
    if found:
        return CheckpointError(f"{prefix}: a folder; its checkpoints are {', '.join(found[:5])}")
    names = [os.path.basename(p).removesuffix(".index") for p in beside if p.endswith(".index")]
    close = nearest(name, names) or sorted(names)[:5]
    tail = f"; beside it are {', '.join(close)}" if close else ""
    return CheckpointError(f"{prefix}.index: no such checkpoint{tail}")
