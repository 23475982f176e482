"""Where this package keeps what it can make again: compiled kernels, fetched data.

Never beside its own sources: files that pip did not install stay behind when it uninstalls, and a
folder `site-packages/monolith_jax` with nothing but caches in it would shadow an editable install.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any


def cache_folder(name: str) -> Path:
    """Returns `$XDG_CACHE_HOME/monolith_jax/NAME`, by default below `~/.cache`; makes nothing.

    Example:
      >>> cache_folder("movielens").parts[-2:]
      ('monolith_jax', 'movielens')
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return base / "monolith_jax" / name


def cached_njit(*uses: ModuleType, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Returns `numba.njit(**options)` for the kernels of one file, cached as by `compiled`.

    Args:
      uses: the modules whose kernels and constants are compiled into these.
      options: as `numba.njit` has them.
    """
    from numba import njit

    def decorate(function: Callable[..., Any]) -> Any:
        files = [function.__code__.co_filename, *(str(module.__file__) for module in uses)]
        return compiled(partial(njit, **options), function, [Path(file) for file in files])

    return decorate


def compiled(
    decorator: Callable[..., Any],
    function: Callable[..., Any],
    sources: Sequence[Path],
    compiled_for: object = None,
) -> Any:
    """Returns `decorator(cache=True)(function)`, cached in `cache_folder("numba")`.

    A folder that the user chose by NUMBA_CACHE_DIR is kept. numba decides on the folder when the
    decorator runs, so its setting is changed for that moment only.

    Args:
      decorator: numba's `njit` or `cfunc`, with all options but `cache`.
      function: the kernel; numba looks at its file alone to see whether a cache is stale.
      sources: all files that it is made of; the name that it is cached under speaks for them.
      compiled_for: settings that it is compiled by, told by their repr.

    Without sources, or a folder that can be written, it is compiled anew in every process.
    """
    try:
        digest = hashlib.sha256(repr(compiled_for).encode())
        for path in sources:
            digest.update(path.read_bytes())
        function.__qualname__ += "_" + digest.hexdigest()[:12]
        return _in_cache_folder(decorator(cache=True), function)
    except (OSError, RuntimeError):
        return decorator()(function)


def _in_cache_folder(decorator: Callable[..., Any], function: Callable[..., Any]) -> Any:
    from numba import config

    before = config.CACHE_DIR
    config.CACHE_DIR = before or str(cache_folder("numba"))
    try:
        return decorator(function)
    finally:
        config.CACHE_DIR = before
