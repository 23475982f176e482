"""Paths: whose they are, their parts, and joining that cannot leave a folder."""

import os
import re
from typing import TypeAlias

from monolith_jax.storage._errors import StorageError

Path: TypeAlias = str | os.PathLike[str]

GS = "gs://"
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*):/")


def is_gs(path: Path) -> bool:
    """Returns whether `path` lies in Google Cloud Storage.

    Raises:
      StorageError: it has another scheme, or is a gs:// path that lost a slash in pathlib.

    Example:
      >>> is_gs("gs://bucket/data"), is_gs("/tmp/data")
      (True, False)
    """
    text = os.fspath(path)
    if text.startswith(GS):
        return True
    scheme = _SCHEME.match(text)
    if scheme is None:
        return False
    if scheme[1] == "gs":
        raise StorageError(f"{text}: pathlib turns gs:// into gs:/; pass the path as a string")
    raise StorageError(f"{text}: {scheme[1]}:// is not supported; valid are gs:// and local paths")


def split_gs(path: Path) -> tuple[str, str]:
    """Splits gs://bucket/name into (bucket, name); the name may be empty.

    Raises:
      StorageError: the path does not begin with gs:// or has no bucket.

    Example:
      >>> split_gs("gs://bucket/a/b"), split_gs("gs://bucket")
      (('bucket', 'a/b'), ('bucket', ''))
    """
    text = os.fspath(path)
    if not text.startswith(GS):
        raise StorageError(f"{text}: a path gs://bucket/name is needed")
    bucket, _, name = text[len(GS) :].partition("/")
    if not bucket:
        raise StorageError(f"{text}: the name of the bucket is missing")
    return bucket, name


def bucket_of(path: Path) -> str:
    """Returns the bucket of a gs:// path, "" for a local one.

    Example:
      >>> bucket_of("gs://bucket/a"), bucket_of("/tmp/a")
      ('bucket', '')
    """
    return split_gs(path)[0] if is_gs(path) else ""


def in_bucket(bucket: str, name: str) -> str:
    """Returns the path of a name in a bucket; the name itself, a local path, if `bucket` is "".

    Example:
      >>> in_bucket("bucket", "a/b"), in_bucket("", "/tmp/a")
      ('gs://bucket/a/b', '/tmp/a')
    """
    return f"{GS}{bucket}/{name}" if bucket else name


def join(folder: Path, *names: str) -> str:
    """Joins names below a folder, and refuses any that could lead out of it.

    Args:
      folder: a local folder or gs://bucket/folder.
      *names: relative paths with "/" between their parts, from a listing or a file's contents.

    Returns:
      The joined path; it lies below `folder` whatever the names hold.

    Raises:
      StorageError: a name is empty or absolute, has a ".." or "." or empty part, or a character
        that ends a path (NUL) or starts another (a backslash, on Windows).

    Example:
      >>> join("gs://bucket/run", "7", "state")
      'gs://bucket/run/7/state'
      >>> join("/tmp/run", "../etc/passwd")
      Traceback (most recent call last):
      monolith_jax.storage._errors.StorageError: '../etc/passwd' would leave its folder /tmp/run
    """
    base = os.fspath(folder)
    if is_gs(base):
        split_gs(base)
    for name in names:
        parts = name.split("/")
        foreign = os.path.isabs(name) or bool(os.path.splitdrive(name)[0])
        if foreign or "\0" in name or (os.sep != "/" and os.sep in name):
            raise StorageError(f"{name!r} would leave its folder {base}")
        if any(part in ("", ".", "..") for part in parts):
            raise StorageError(f"{name!r} would leave its folder {base}")
    return "/".join([base if base.endswith("://") else base.rstrip("/"), *names])
