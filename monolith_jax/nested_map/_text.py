"""How a `NestedMap` shows itself: repr, debug strings, completion."""

import logging
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from monolith_jax.nested_map._convert import ConvertibleMap, to_plain
from monolith_jax.nested_map._keyed import KeyedDict

_LOG = logging.getLogger("monolith_jax.nested_map")
_WIDTH = 88
_SHOWN_VALUES = 8


class TextMap(ConvertibleMap):
    """The part of `NestedMap` that is read by people."""

    __slots__ = ()

    def __repr__(self) -> str:
        return describe(self)

    def __dir__(self) -> Iterable[str]:
        # Completion offers keys and whole paths, as in Lingvo.
        return {*self, *self.Keys(), *super().__dir__()}

    def DebugString(self) -> str:
        """Returns one line per leaf, path and value, sorted.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> print(NestedMap(b=[1, 2], a=NestedMap(c=3)).DebugString())
          a.c     3
          b[0]    1
          b[1]    2
        """
        return "\n".join(self._lines())

    def VLog(self, level: int | None = None, prefix: str | None = None) -> None:
        """Logs the lines of `DebugString` to the logger ``monolith_jax.nested_map``.

        Args:
          level: absl's verbosity: 0 (the default) is INFO, 1 DEBUG, 2 and more are finer still; -1
            is WARNING, -2 ERROR, -3 CRITICAL.
          prefix: begins each line; "nmap: " by default.

        Example:
          >>> from monolith_jax.nested_map import NestedMap
          >>> NestedMap(a=1).VLog(1, "batch:")
        """
        verbosity = 0 if level is None else level
        severity = _severity(verbosity)
        if _LOG.isEnabledFor(severity):
            for line in self._lines():
                _LOG.log(severity, "%s %s", "nmap: " if prefix is None else prefix, line)

    def _lines(self) -> list[str]:
        items = self.FlattenItems()
        width = 4 + max((len(path) for path, _ in items), default=0)
        return sorted(f"{path:{width}}{_debug_text(leaf)}" for path, leaf in items)


def _debug_text(leaf: Any) -> str:
    return str(to_plain(leaf) if isinstance(leaf, tuple) else leaf)


def _severity(verbosity: int) -> int:
    if verbosity <= 0:
        return logging.INFO + 10 * min(-verbosity, 3)
    return max(logging.DEBUG - verbosity + 1, 1)


def describe(value: Any, indent: int = 0, above: frozenset[int] = frozenset()) -> str:
    """Returns the repr of `value`: one line if it fits, else a child a line; arrays abbreviated.

    Args:
      value: anything; maps, dicts, lists and tuples are gone into.
      indent: the column where it begins.
      above: ids of the containers that it is in, so that a cycle ends.

    Example:
      >>> describe({"w": np.zeros((1000, 16), np.float32)})
      "{'w': float32[1000,16]}"
    """
    form = _form(value)
    if form is None:
        return _leaf(value)
    if id(value) in above:
        return "..."
    begin, children, end = form
    above = above | {id(value)}
    parts = [label + describe(child, indent + 4, above) for label, child in children]
    line = begin + ", ".join(parts) + end
    if "\n" not in line and indent + len(line) <= _WIDTH:
        return line
    pad = " " * indent
    return begin + "\n" + "".join(f"{pad}    {part},\n" for part in parts) + pad + end


def _form(value: Any) -> tuple[str, list[tuple[str, Any]], str] | None:
    """Returns the opening, labelled children and closing of a container, None of a leaf."""
    if isinstance(value, KeyedDict):
        name = type(value).__name__
        return f"{name}(", [(f"{key}=", child) for key, child in value.items()], ")"
    if type(value) is dict:
        return "{", [(f"{key!r}: ", child) for key, child in value.items()], "}"
    if type(value) is list:
        return "[", [("", child) for child in value], "]"
    if type(value) is tuple:
        return "(", [("", child) for child in value], ",)" if len(value) == 1 else ")"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        labels = [f"{field}=" for field in value._fields]
        return f"{type(value).__name__}(", list(zip(labels, value, strict=True)), ")"
    return None


def _leaf(value: Any) -> str:
    if isinstance(value, (np.ndarray, jax.Array)) and not isinstance(value, jax.core.Tracer):
        deleted = isinstance(value, jax.Array) and value.is_deleted()
        if deleted or value.ndim > 1 or value.size > _SHOWN_VALUES:
            shape = ",".join(map(str, value.shape))
            return f"{value.dtype}[{shape}]" + (" (deleted)" if deleted else "")
        return " ".join(repr(value).split())
    return repr(value)
