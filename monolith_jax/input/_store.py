"""Decoded files, kept while there is room, and the next ones decoded ahead."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from monolith_jax.input.schema import Columns

_logger = logging.getLogger(__name__)


class Store:
    """A bounded cache of decoded files: file index -> columns, least recently used out first.

    Safe to use from several threads; a file is decoded once even if several ask for it at a time.
    What one request needs stays at hand for the next one, even if that alone is more than
    `cache_bytes`.
    """

    def __init__(
        self, decode: Callable[[int], Columns], num_files: int, cache_bytes: int, threads: int
    ) -> None:
        """`threads` files after those asked for are decoded ahead, as far as they fit."""
        self._decode, self._num_files = decode, num_files
        self._cache_bytes, self._threads = cache_bytes, threads
        self._lock = threading.Lock()
        self._files: OrderedDict[int, Future[Columns]] = OrderedDict()
        self._sizes: dict[int, int] = {}  # of the decoded ones
        self._pool = ThreadPoolExecutor(threads, "decode") if threads else None
        self._warned = False

    def get(self, files: Sequence[int]) -> list[Columns]:
        """Returns the columns of `files`, decoding those that are not at hand.

        Raises:
          Exception: what `decode` raised; the next request tries again.
        """
        mine: list[tuple[int, Future[Columns]]] = []
        with self._lock:
            futures = [self._find(file, mine) for file in files]
        # With a pool, this thread takes the first, and whatever else is needed runs beside it.
        for file, future in mine[1:] if self._pool else ():
            self._submit(file, future)
        for file, future in mine[:1] if self._pool else mine:
            self._run(file, future)
        columns = [future.result() for future in futures]
        with self._lock:
            self._drop(set(files))
            ahead = self._ahead(files)
        for file, future in ahead:
            self._submit(file, future)
        return columns

    def _find(self, file: int, mine: list[tuple[int, Future[Columns]]]) -> Future[Columns]:
        if file not in self._files:
            self._files[file] = Future()
            mine.append((file, self._files[file]))
        self._files.move_to_end(file)
        return self._files[file]

    def _submit(self, file: int, future: "Future[Columns]") -> None:
        assert self._pool is not None
        self._pool.submit(self._run, file, future)

    def _run(self, file: int, future: "Future[Columns]") -> None:
        try:
            columns = self._decode(file)
        except BaseException as error:
            # Whoever asked for the file raises it; it is not kept, so that a retry can succeed.
            with self._lock:
                self._files.pop(file, None)
            future.set_exception(error)
        else:
            with self._lock:
                self._sizes[file] = sum(values.nbytes for values in columns.values())
            future.set_result(columns)

    def _drop(self, keep: set[int]) -> None:
        total = sum(self._sizes.values())
        for file in list(self._files):
            if total <= self._cache_bytes:
                return
            if file not in keep and file in self._sizes:
                del self._files[file]
                total -= self._sizes.pop(file)
        if total > self._cache_bytes and not self._warned:
            self._warned = True
            _logger.warning(
                "one batch needs %d files at once, %d MB decoded, more than cache_bytes (%d MB): a "
                "smaller shuffle_window, smaller files or a larger cache would save memory or time",
                *(len(keep), total >> 20, self._cache_bytes >> 20),
            )

    def _ahead(self, files: Sequence[int]) -> list[tuple[int, "Future[Columns]"]]:
        """Claims the files to decode ahead: those after `files`, as many as there is room for."""
        if not self._threads or not self._sizes:
            return []
        room = self._cache_bytes // max(1, *self._sizes.values()) - len(files)
        claimed: list[tuple[int, Future[Columns]]] = []
        for i in range(1, 1 + min(self._threads, room, self._num_files - len(files))):
            self._find((max(files) + i) % self._num_files, claimed)
        return claimed
