"""How far a run got: the newest complete checkpoint in a folder, TensorFlow's or ours.

Nothing is read but names, so it works on gs:// and without orbax or TensorFlow.
"""

import logging
import os
import re

from monolith_jax import storage

_log = logging.getLogger(__name__)

_TF_NAME = "model.ckpt"
_TF_META = re.compile(r"-([0-9]+)\.meta")
_LOCAL = ("_CHECKPOINT_METADATA", "commit_success.txt")  # orbax's, or copied from a bucket
_MARKER = "commit_success.txt"  # on gs://, where a folder cannot be renamed


def completed_step(folder: storage.Path) -> int:
    """Returns the step of the newest complete checkpoint in a folder, 0 if there is none.

    Counted are TensorFlow's `folder/model.ckpt-<step>.meta`, and native checkpoints, folders
    `folder/<step>/` or, in a model dir, `folder/checkpoints/<step>/`. A folder with a number for
    a name that holds no checkpoint, or one that is not finished, does not count.

    Args:
      folder: local or gs://; it need not exist.

    Raises:
      NotFoundError: there is no such bucket.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> completed_step(folder)
      0
      >>> storage.write_bytes(storage.join(folder, "model.ckpt-200.meta"), b"")
      >>> completed_step(folder)
      200
    """
    base = os.fspath(folder).rstrip("/") or "/"
    return max(tf_step(base), native_step(base), native_step(storage.join(base, "checkpoints")))


def tf_step(folder: storage.Path) -> int:
    """Returns the step of the newest `model.ckpt-<step>.meta` in a folder, 0 if there is none."""
    prefix = storage.join(folder, _TF_NAME)
    newest = 0
    for info in storage.list_prefix(prefix):
        found = _TF_META.fullmatch(info.path.removeprefix(prefix))
        if found:
            _log.info("found checkpoint %s", info.path)
            newest = max(newest, int(found[1]))
    return newest


def native_step(folder: storage.Path) -> int:
    """Returns the step of the newest native checkpoint in a folder, 0 if there is none."""
    if not storage.is_dir(folder):
        return 0
    names = [name for name in storage.list_folders(folder) if name.isascii() and name.isdigit()]
    for name in sorted(names, key=int, reverse=True):
        if _is_complete(storage.join(folder, name)):
            _log.info("found checkpoint %s", storage.join(folder, name))
            return int(name)
    return 0


def _is_complete(folder: str) -> bool:
    # A local one gets its final name by a rename, once it is complete.
    marks = [_MARKER] if storage.is_gs(folder) else _LOCAL
    return any(storage.exists(storage.join(folder, mark)) for mark in marks)
