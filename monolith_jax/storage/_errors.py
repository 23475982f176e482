"""What can go wrong with a path, as errors that a user can act on."""

import re
from collections.abc import Callable, Iterable

from monolith_jax.errors import UserError, nearest

# What must never reach a log or a message: bearer tokens, session addresses of resumable uploads
# (whoever has one may write), private keys, and token fields of JSON or query strings.
_SECRETS = re.compile(
    r"(?P<keep>upload_id=|access_token=|Bearer\s+|[\"'](?:access_token|refresh_token|id_token|"
    r"client_secret|private_key)[\"']\s*:\s*[\"'])[^\s\"'&]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
    r"|ya29\.[\w.\-]+",
    re.DOTALL,
)


class StorageError(UserError, OSError):
    """A path that cannot be read or written; the message names it and says why."""


class NotFoundError(StorageError, FileNotFoundError):
    """A path that does not exist; the message names the nearest that does."""


def redact(text: str) -> str:
    """Returns `text` without tokens, keys and upload sessions.

    Example:
      >>> redact("POST /o?upload_id=5e5c8f&name=x with Bearer ya29.abc")
      'POST /o?upload_id=(hidden)&name=x with Bearer (hidden)'
    """
    return _SECRETS.sub(lambda match: f"{match['keep'] or ''}(hidden)", text)


def one_line(error: BaseException) -> str:
    """Returns an error as one short line without credentials."""
    text = " ".join(redact(str(error)).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def not_found(path: str, siblings: Callable[[], Iterable[str]]) -> NotFoundError:
    """Returns the error for a path that does not exist.

    Args:
      path: the path asked for.
      siblings: lists the names beside it; it may fail, the message is then shorter.
    """
    name = path.rstrip("/").rpartition("/")[2]
    try:
        close = nearest(name, siblings())
    except OSError:
        close = []  # the folder cannot be listed: it does not exist either, or is not ours to see
    tail = f"; did you mean {' or '.join(close)}?" if close else ""
    return NotFoundError(f"{path}: no such file or folder{tail}")
