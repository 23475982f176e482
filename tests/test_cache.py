"""Caches lie in the user's cache folder, never beside the sources."""

import importlib
from pathlib import Path

import pytest

from monolith_jax._cache import cache_folder

MODULE = """
from monolith_jax._cache import cached_njit

@cached_njit(nogil=True)
def double(x):
    return 2 * x
"""


def test_compiled_kernels_lie_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba import config

    source = tmp_path / "source"
    source.mkdir()
    (source / "cached_kernel.py").write_text(MODULE)
    monkeypatch.syspath_prepend(source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    assert importlib.import_module("cached_kernel").double(21) == 42
    assert config.CACHE_DIR == ""
    assert list((tmp_path / "cache" / "monolith_jax" / "numba").rglob("*.nbi"))
    assert not list(source.rglob("*.nbi"))


def test_a_folder_that_the_user_chose_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba import config

    source = tmp_path / "source"
    source.mkdir()
    (source / "cached_kernel_too.py").write_text(MODULE)
    monkeypatch.syspath_prepend(source)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "chosen"))
    assert importlib.import_module("cached_kernel_too").double(21) == 42
    assert list((tmp_path / "chosen").rglob("*.nbi"))


def test_a_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert cache_folder("numba") == Path.home() / ".cache" / "monolith_jax" / "numba"
