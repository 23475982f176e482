"""Caches lie in the user's cache folder, never beside the sources."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from monolith_jax._cache import cache_folder

MODULE = """
from monolith_jax._cache import cached_njit

@cached_njit(nogil=True)
def double(x):
    return 2 * x
"""

USING = """
import used_kernel
from monolith_jax._cache import cached_njit
from used_kernel import FACTOR

@cached_njit(used_kernel, nogil=True)
def times(x):
    return FACTOR * x
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


def test_a_kernel_is_compiled_anew_when_what_it_uses_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "using_kernel.py").write_text(USING)
    found = []
    for factor in (2, 3):
        (tmp_path / "used_kernel.py").write_text(f"FACTOR = {factor}\n")
        importlib.invalidate_caches()
        for name in ("using_kernel", "used_kernel"):
            sys.modules.pop(name, None)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        found.append(importlib.import_module("using_kernel").times(21))
    assert found == [42, 63]


def test_a_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert cache_folder("numba") == Path.home() / ".cache" / "monolith_jax" / "numba"
