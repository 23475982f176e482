"""Columns by number (of a file, or of a window of the shuffle), kept while there is room."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from monolith_jax.input.schema import Columns


class Store:
    """A bounded cache: number -> columns, the least recently used out first.

    Safe to use from several threads; columns are made once even if several ask for them at a time.
    What one request needs stays at hand for the next one, even if that alone is more than
    `cache_bytes`.
    """

    def __init__(
        self, make: Callable[[int], Columns], size: int, cache_bytes: int, threads: int = 0
    ) -> None:
        """Of the numbers 0..size-1, `threads` after those asked for are made ahead, if they fit."""
        self._make, self._size = make, size
        self._cache_bytes, self._threads = cache_bytes, threads
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Future[Columns]] = OrderedDict()
        self._sizes: dict[int, int] = {}  # in bytes, of those that are made
        self._pool = ThreadPoolExecutor(threads, "decode") if threads else None

    def get(self, numbers: Sequence[int]) -> list[Columns]:
        """Returns the columns of `numbers`, making those that are not at hand.

        Raises:
          Exception: what `make` raised; the next request tries again.
        """
        mine: list[tuple[int, Future[Columns]]] = []
        with self._lock:
            futures = [self._find(number, mine) for number in numbers]
        # With a pool, this thread takes the first, and whatever else is needed runs beside it.
        for number, future in mine[1:] if self._pool else ():
            self._submit(number, future)
        for number, future in mine[:1] if self._pool else mine:
            self._run(number, future)
        columns = [future.result() for future in futures]
        with self._lock:
            self._drop(set(numbers))
            ahead = self._ahead(numbers)
        for number, future in ahead:
            self._submit(number, future)
        return columns

    def trim(self) -> None:
        """Drops what the last request needed as well, if there is no room for it."""
        with self._lock:
            self._drop(set())

    def _find(self, number: int, mine: list[tuple[int, Future[Columns]]]) -> Future[Columns]:
        if number not in self._held:
            self._held[number] = Future()
            mine.append((number, self._held[number]))
        self._held.move_to_end(number)
        return self._held[number]

    def _submit(self, number: int, future: "Future[Columns]") -> None:
        assert self._pool is not None
        self._pool.submit(self._run, number, future)

    def _run(self, number: int, future: "Future[Columns]") -> None:
        try:
            columns = self._make(number)
        except BaseException as error:
            # Whoever asked for it raises it; it is not kept, so that a retry can succeed.
            with self._lock:
                self._held.pop(number, None)
            future.set_exception(error)
        else:
            with self._lock:
                self._sizes[number] = sum(values.nbytes for values in columns.values())
            future.set_result(columns)

    def _drop(self, keep: set[int]) -> None:
        total = sum(self._sizes.values())
        for number in list(self._held):
            if total <= self._cache_bytes:
                return
            if number not in keep and number in self._sizes:
                del self._held[number]
                total -= self._sizes.pop(number)

    def _ahead(self, numbers: Sequence[int]) -> list[tuple[int, "Future[Columns]"]]:
        """Claims what is to be made ahead: those after `numbers`, as many as there is room for."""
        if not self._threads or not self._sizes:
            return []
        room = self._cache_bytes // max(1, *self._sizes.values()) - len(numbers)
        claimed: list[tuple[int, Future[Columns]]] = []
        for i in range(1, 1 + min(self._threads, room, self._size - len(numbers))):
            self._find((max(numbers) + i) % self._size, claimed)
        return claimed
