"""Runs a function of the step ahead of its consumer, in the background, in order.

Threads, not processes: reading, parsing and numpy run without the GIL, and what they make goes to
the device without being copied to another process first.
"""

import atexit
import threading
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

_EXIT_SECONDS = 5.0


class _Shared:
    """What the workers and the consumer share; the workers never hold the `Prefetch` itself."""

    def __init__(self, start: int, stop: int, buffer: int) -> None:
        self.changed = threading.Condition()
        self.next_made, self.next_taken = start, start
        self.stop, self.buffer = stop, buffer
        self.closed = False
        # By step: (True, value) or (False, exception).
        self.results: dict[int, tuple[bool, Any]] = {}

    def claim(self) -> int | None:
        """Waits until a step may be made and returns it; None when there is no more to do."""
        with self.changed:
            while not self.closed and self.next_made < self.stop:
                if self.next_made < self.next_taken + self.buffer:
                    self.next_made += 1
                    return self.next_made - 1
                self.changed.wait()
            return None

    def put(self, step: int, good: bool, result: Any) -> None:
        with self.changed:
            if not self.closed:
                self.results[step] = (good, result)
            if not good:
                self.stop = min(self.stop, step + 1)  # nothing after a failure is wanted
            self.changed.notify_all()

    def take(self) -> tuple[int, bool, Any] | None:
        """Waits for the next step in order; None at the end or once closed."""
        with self.changed:
            step = self.next_taken
            while not self.closed and step < self.stop and step not in self.results:
                self.changed.wait()
            if self.closed or step >= self.stop:
                return None
            self.next_taken += 1
            self.changed.notify_all()
            return step, *self.results.pop(step)

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.results.clear()
            self.changed.notify_all()


def _work(shared: _Shared, make: Callable[[int], Any]) -> None:
    while (step := shared.claim()) is not None:
        try:
            shared.put(step, True, make(step))
        except BaseException as error:
            # Raised again by the consumer, when it comes to this step.
            shared.put(step, False, error)


class Prefetch(Generic[T], Iterator[tuple[int, T]]):
    """Iterator over (k, make(k)) that is computed ahead; see `prefetch`."""

    def __init__(
        self, make: Callable[[int], T], start: int, stop: int, buffer: int, workers: int
    ) -> None:
        self._shared = _Shared(start, stop, buffer)
        self._threads = [
            threading.Thread(
                target=_work, args=(self._shared, make), name=f"prefetch-{i}", daemon=True
            )
            for i in range(workers)
        ]
        # A dropped iterator stops its threads but does not wait for them: the collection may run in
        # a thread that holds a lock which `make` needs.
        self._finalizer = weakref.finalize(self, self._shared.close)
        self._finalizer.atexit = False
        _live.add(self)
        for thread in self._threads:
            thread.start()

    def __next__(self) -> tuple[int, T]:
        taken = self._shared.take()
        if taken is None:
            self.close()
            raise StopIteration
        step, good, result = taken
        if good:
            return step, result
        self.close()
        try:
            raise result
        finally:
            del result, taken  # a traceback that holds this frame must not hold itself

    def close(self) -> None:
        """Stops the threads, waiting for a `make` that is running; harmless when done before."""
        self._finalizer()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_live: "weakref.WeakSet[Prefetch[Any]]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Stops what still runs at the end of the interpreter.

    The threads are daemons, so that one that is stuck cannot keep the process alive; one that is
    not gets the time to finish, so that it does not run into the ruins.
    """
    for iterator in list(_live):
        iterator._finalizer()
        for thread in iterator._threads:
            thread.join(timeout=_EXIT_SECONDS)


def prefetch(
    make: Callable[[int], T], start: int, stop: int, *, buffer: int = 2, workers: int = 1
) -> Prefetch[T]:
    """Returns an iterator over (k, make(k)) for k in [start, stop), made ahead in the background.

    Results come in order, whatever the number of workers. If `make(k)` raises, the steps before k
    still come, then the exception is raised at step k with its own traceback, and the iterator
    ends. A consumer that stops early calls `close()`, or uses it as a context manager, or just
    drops it.

    Args:
      make: the function; called once per step, from several threads if `workers` > 1.
      start: the first step.
      stop: one past the last step.
      buffer: how many steps beyond the one that the consumer has are made ahead, 1 or more.
      workers: threads that call `make`, 1 or more; more than `buffer` are never busy.

    Raises:
      ValueError: buffer or workers below 1.

    Example:
      >>> with prefetch(lambda k: k * k, 3, 6) as squares:
      ...     list(squares)
      [(3, 9), (4, 16), (5, 25)]
    """
    if buffer < 1 or workers < 1:
        raise ValueError(f"buffer {buffer} and workers {workers} must be at least 1")
    return Prefetch(make, start, stop, buffer, workers)
