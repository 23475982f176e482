"""Compiled programs are kept between runs: entries whole, the second run compiles nothing."""

import logging
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax import compile_cache, storage


def work(scale: float) -> np.ndarray:
    """Compiles one program, as a process would that has none in memory."""
    jax.clear_caches()
    return np.asarray(jax.jit(lambda x: jnp.sin(x) * scale)(np.arange(8.0, dtype=np.float32)))


def run(folder: Any, scale: float = 2.0) -> compile_cache.CompileCache:
    with compile_cache.kept_in(str(folder)) as cache:
        work(scale)
    return cache


def test_the_second_run_compiles_nothing(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    assert (first.taken, first.kept) == (0, 1)
    assert (second.taken, second.kept) == (1, 0)
    assert second.summary() == (
        f"1 compiled programs taken from {second.folder}, 0 compiled and kept there"
    )


def test_another_program_is_kept_beside_it(tmp_path: Path) -> None:
    run(tmp_path)
    other = run(tmp_path, scale=3.0)
    assert (other.taken, other.kept) == (0, 1)
    assert len(storage.list_files(other.folder)) == 2


def test_entries_are_there_once_their_program_is_compiled(tmp_path: Path) -> None:
    """Not only at the end, which a run that is killed does not reach."""
    with compile_cache.kept_in(str(tmp_path)) as cache:
        work(2.0)
        assert len(storage.list_files(cache.folder)) == 1


def test_half_an_entry_is_not_kept(tmp_path: Path) -> None:
    """While one thread writes an entry, the end of another's compiling leaves it alone."""
    with compile_cache.kept_in(str(tmp_path)) as cache:
        stage = Path(str(jax.config.jax_compilation_cache_dir))

        def write() -> None:
            cache.on_event("/jax/compilation_cache/cache_misses")
            (stage / "other-cache").write_bytes(b"half")

        writer = threading.Thread(target=write)
        writer.start()
        writer.join()
        cache.on_duration("/jax/core/compile/backend_compile_duration", 1.0)
        assert not storage.exists(cache.folder)


def test_what_cannot_be_kept_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(source: Any, target: Any) -> None:
        raise storage.StorageError(f"{target}: no space left on device")

    monkeypatch.setattr(storage, "upload", full)
    with caplog.at_level(logging.WARNING):
        run(tmp_path)
    (said,) = [r.getMessage() for r in caplog.records if r.name == compile_cache.__name__]
    assert said.startswith(f"a compiled program is not kept: {tmp_path}")
    assert said.endswith("no space left on device")


def test_jax_is_left_as_it_was(tmp_path: Path) -> None:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    run(tmp_path)
    assert [getattr(jax.config, name) for name in names] == before
    work(5.0)
    assert len(list(tmp_path.rglob("*-cache"))) == 1


def test_a_bucket_keeps_them_too(gcs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "SHORT", 0.0)
    first, second = run(gcs / "compiled"), run(gcs / "compiled")
    assert (first.taken, first.kept) == (0, 1)
    assert (second.taken, second.kept) == (1, 0)
    assert second.folder.startswith("gs://")
