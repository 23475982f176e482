"""Which keys a `NestedMap` takes, and the errors about keys.

A key is good if it can follow a dot: an ASCII identifier as a whole, and not the name of something
that `dict` has. Lingvo and Monolith compare a prefix only (``"a-b"`` passes), and not everywhere.
"""

import re
from typing import Final

from monolith_jax.errors import UserError, nearest

RESERVED: Final = frozenset(dir(dict))
"""Names that are no keys: ``map.items`` has to stay the method."""

_LISTED = 20


class NestedMapError(UserError, ValueError, AssertionError):
    """A key, a path or a list of values that a `NestedMap` cannot take.

    Lingvo and Monolith raise ValueError for some of these and AssertionError for others; this is
    both, so that code written for either catches it.

    Example:
      >>> from monolith_jax.nested_map import NestedMap
      >>> NestedMap(get=1)
      Traceback (most recent call last):
      ...
      monolith_jax.nested_map._keys.NestedMapError: 'get' is a reserved key: dict.get exists
    """


class _Missing:
    """Writes the message of a missing key when somebody reads it, since most are swallowed.

    ``args`` are the key and all the keys that there are.
    """

    args: tuple[object, tuple[object, ...]]

    def __str__(self) -> str:
        key, present = self.args
        shown = ", ".join(map(repr, sorted(map(str, present))[:_LISTED]))
        more = f", and {len(present) - _LISTED} more" if len(present) > _LISTED else ""
        close = nearest(str(key), map(str, present))
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"{key!r}; available attributes: [{shown}{more}]{hint}"


class MissingKeyError(_Missing, KeyError):
    """A key that is not there; the message lists the keys that are, near misses named.

    Example:
      >>> from monolith_jax.nested_map import NestedMap
      >>> NestedMap(weight=1)["wieght"]
      Traceback (most recent call last):
      ...
      monolith_jax.nested_map._keys.MissingKeyError: 'wieght'; available attributes: ['weight'];
      did you mean weight?
    """


class MissingAttributeError(_Missing, AttributeError):
    """The same as `MissingKeyError`, for attribute access."""


def check_key(key: object, path: str = "") -> None:
    """Raises NestedMapError if `key` may not be a key; `path` says where, for the message.

    Example:
      >>> check_key("class"), check_key("_x1")
      (None, None)
      >>> check_key("user-id", "batch")
      Traceback (most recent call last):
      ...
      monolith_jax.nested_map._keys.NestedMapError: Invalid NestedMap key 'user-id' in 'batch': a
      letter or _ comes first, then letters, digits and _ (for instance 'user_id')
    """
    # For ASCII, isidentifier() is the pattern [A-Za-z_][A-Za-z0-9_]*, four times as fast.
    if isinstance(key, str) and key.isascii() and key.isidentifier() and key not in RESERVED:
        return
    where = f" in {path!r}" if path else ""
    if not isinstance(key, str):
        raise NestedMapError(
            f"Key in a NestedMap has to be a string{where}, not {type(key).__name__}: {key!r}"
        )
    if key in RESERVED:
        raise NestedMapError(f"{key!r} is a reserved key{where}: dict.{key} exists")
    mended = re.sub(r"\W|^(?=\d)|^$", "_", key, flags=re.ASCII)
    raise NestedMapError(
        f"Invalid NestedMap key {key!r}{where}: a letter or _ comes first, then letters, digits "
        f"and _ (for instance {mended!r})"
    )
