"""Compiled programs, kept from one run to the next, so that a restart does not compile again.

jax has such a cache (`jax_compilation_cache_dir`), whose key is a hash of the program, the versions
of jax and of the compiler, the devices and the flags. It writes its entries in place, where a
process that is killed leaves half of one for good, and it wants a local folder. So jax works in a
folder of this process, and whole entries travel between it and the one that is kept: all that are
there at the start, each new one as soon as its program is compiled.

The folder that is kept is local or gs://, and holds a folder for each version of jax and each
platform. Entries are machine code, trusted as a program is: keep it where only you can write.
"""

import contextlib
import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from monolith_jax import storage

_LOG = logging.getLogger(__name__)
_HIT = "/jax/compilation_cache/cache_hits"
_MISS = "/jax/compilation_cache/cache_misses"
_COMPILED = "/jax/core/compile/backend_compile_duration"

SHORT = 0.5
"""Seconds of compiling that a trip to a bucket is not worth."""


class CompileCache:
    """The entries of one folder, in use.

    Attributes:
      folder: where they are kept.
      taken: programs of this process that were not compiled again.
      kept: programs of this process that were compiled and kept.
    """

    def __init__(self, folder: str, stage: Path) -> None:
        version = f"jax-{jax.__version__}-{jax.default_backend()}"
        self.folder = storage.join(folder, version)
        self.taken = self.kept = 0
        self._stage, self._lock = stage, threading.Lock()
        self._writing: set[int] = set()
        with contextlib.suppress(storage.NotFoundError):
            storage.download_folder(self.folder, stage)
        self._there = set(self._entries())

    def _entries(self) -> list[str]:
        return sorted(path.name for path in self._stage.iterdir())

    def on_event(self, event: str, **_: str | int) -> None:
        """Takes one of jax's events: an entry was found, or one is about to be written."""
        self.taken += event == _HIT
        if event == _MISS:
            with self._lock:
                self.kept += 1
                self._writing.add(threading.get_ident())

    def on_duration(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Keeps what is new once a program is compiled and its entry written."""
        if event == _COMPILED:
            with self._lock:
                self._writing.discard(threading.get_ident())
                if not self._writing:  # no other thread is in the midst of an entry
                    self.publish()

    def publish(self) -> None:
        """Keeps the entries that are new, complete or not at all.

        What cannot be kept costs the next run its time and this one nothing but a warning.
        """
        for name in self._entries():
            if name in self._there:
                continue
            self._there.add(name)
            try:
                storage.upload(self._stage / name, storage.join(self.folder, name))
            except storage.StorageError as error:
                _LOG.warning("a compiled program is not kept: %s", error)

    def summary(self) -> str:
        """Returns what it was good for, as a line."""
        return (
            f"{self.taken} compiled programs taken from {self.folder}, {self.kept} compiled and "
            "kept there"
        )


@contextlib.contextmanager
def kept_in(folder: str) -> Iterator[CompileCache]:
    """Has jax take compiled programs from a folder, and keeps there those that it compiles.

    Of several processes the first one writes, and all of them read: they should share the folder.

    Args:
      folder: local or gs://; made as needed.

    Raises:
      StorageError: what is there cannot be read.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with kept_in(folder) as cache:
      ...     _ = jax.jit(lambda x: x * 3 + 1)(2.0)
      >>> cache.kept > 0
      True
    """
    values: dict[str, object] = {
        # jax's defaults leave out small programs, and put the folder's name into some keys.
        "jax_persistent_cache_min_compile_time_secs": SHORT if storage.is_gs(folder) else 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_persistent_cache_enable_xla_caches": "",
        "jax_compilation_cache_max_size": -1,
    }
    with tempfile.TemporaryDirectory(prefix="monolith-jax-compiled-") as stage:
        values["jax_compilation_cache_dir"] = stage
        before = {name: getattr(jax.config, name) for name in values}
        cache = CompileCache(folder, Path(stage))
        _use(values)
        jax.monitoring.register_event_listener(cache.on_event)
        jax.monitoring.register_event_duration_secs_listener(cache.on_duration)
        try:
            yield cache
        finally:
            jax.monitoring.unregister_event_listener(cache.on_event)
            jax.monitoring.unregister_event_duration_listener(cache.on_duration)
            cache.publish()
            _use(before)


def _use(values: dict[str, object]) -> None:
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
