"""Where this package keeps what it can make again: compiled kernels, fetched data.

Never beside its own sources: files that pip did not install stay behind when it uninstalls, and a
folder `site-packages/monolith_jax` with nothing but caches in it would shadow an editable install.
"""

import os
from collections.abc import Callable
from pathlib import Path
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


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Returns `numba.njit(cache=True, **options)` that caches in `cache_folder("numba")`.

    A folder that the user chose by NUMBA_CACHE_DIR is kept. numba decides on the folder when the
    decorator runs, so its setting is changed for that moment only.
    """
    from numba import config, njit

    def decorate(function: Callable[..., Any]) -> Any:
        before = config.CACHE_DIR
        config.CACHE_DIR = before or str(cache_folder("numba"))
        try:
            return njit(cache=True, **options)(function)
        finally:
            config.CACHE_DIR = before

    return decorate
