"""Runs a function of the step ahead of its consumer, in the background, in order."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T], Iterator[tuple[int, T]]):
    """Iterator over (k, make(k)); a context manager; `close()` stops its threads."""

    def __next__(self) -> tuple[int, T]:
        raise NotImplementedError


def prefetch(
    make: Callable[[int], T], start: int, stop: int, *, buffer: int = 2, workers: int = 1
) -> Prefetch[T]:
    """Returns an iterator over (k, make(k)) for k in [start, stop), computed ahead."""
    raise NotImplementedError
