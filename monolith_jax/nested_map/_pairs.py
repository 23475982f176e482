"""Keys and values joined, fast for the few that most nodes have.

A layer has a kernel and a bias. For so few, making a `zip` and reading it costs twice as much as
a dict display, whose size the interpreter knows, and which `dict.update` copies as a block.

Example:
  >>> JOIN[2](("kernel", "bias"), iter([1, 2]))
  {'kernel': 1, 'bias': 2}
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

Keys = tuple[str, ...]
Pairs = dict[str, Any] | Iterable[tuple[str, Any]]


def _one(keys: Keys, values: Iterable[Any]) -> Pairs:
    (k,), (a,) = keys, values
    return {k: a}


def _two(keys: Keys, values: Iterable[Any]) -> Pairs:
    (k, m), (a, b) = keys, values
    return {k: a, m: b}


def _three(keys: Keys, values: Iterable[Any]) -> Pairs:
    (k, m, n), (a, b, c) = keys, values
    return {k: a, m: b, n: c}


def _four(keys: Keys, values: Iterable[Any]) -> Pairs:
    (k, m, n, p), (a, b, c, d) = keys, values
    return {k: a, m: b, n: c, p: d}


def _five(keys: Keys, values: Iterable[Any]) -> Pairs:
    (k, m, n, p, q), (a, b, c, d, e) = keys, values
    return {k: a, m: b, n: c, p: d, q: e}


def _six(keys: Keys, values: Iterable[Any]) -> Pairs:
    (k, m, n, p, q, r), (a, b, c, d, e, f) = keys, values
    return {k: a, m: b, n: c, p: d, q: e, r: f}


JOIN: Final[dict[int, Callable[[Keys, Iterable[Any]], Pairs]]] = {
    1: _one,
    2: _two,
    3: _three,
    4: _four,
    5: _five,
    6: _six,
}
"""Number of keys -> the function that joins them with their values; for others, `zip`."""
