"""Kernels that read and sum rows on CPUs give what XLA gives, byte for byte."""

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from monolith_jax.cpu_memory import PLACES
from monolith_jax.embedding import _access
from monolith_jax.embedding._cpu import picking, register
from monolith_jax.embedding._cpu.kernels import BLOCK
from monolith_jax.embedding._cpu.rows import put, take
from monolith_jax.embedding._none import NONE


def pick(rows: jax.Array, ids: jax.Array, tables: Any = None) -> jax.Array:
    """As `_access.pick`, each id's row apart."""
    return picking.pick(rows, ids, tables).reshape(*ids.shape, rows.shape[1])


xla_pick = partial(_access.pick, fill=0.0)


def rows_and_ids(
    seed: int, n: int, unit: int, shape: tuple[int, ...], dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Returns random bytes as rows, and ids, some of them before or beyond the rows."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (n, unit * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    ids = rng.integers(-2, n + 2, shape).astype(np.int32)
    ids[rng.random(shape) < 0.1] = NONE
    return rows, ids


def same_bytes(found: jax.Array, want: np.ndarray) -> None:
    assert found.shape == want.shape
    assert found.dtype == want.dtype
    assert np.asarray(found).tobytes() == want.tobytes()


def want_picked(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    there = (ids >= 0) & (ids < len(rows))
    found = rows[np.where(there, ids, 0)]
    found[~there] = 0
    return found


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.sampled_from([1, 2, 3, 8, 16, 24, 32, 48, 64, 129]),
    st.tuples(st.integers(0, 40), st.integers(1, 5)),
    st.sampled_from([np.float32, jnp.bfloat16, np.int8]),
)
def test_pick_is_an_index_with_zeros_beyond(
    seed: int, n: int, unit: int, shape: tuple[int, int], dtype: Any
) -> None:
    rows, ids = rows_and_ids(seed, n, unit, shape, dtype)
    same_bytes(pick(jnp.asarray(rows), jnp.asarray(ids)), want_picked(rows, ids))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.sampled_from([1, 2, 3, 8, 16, 24, 32, 48, 64, 129]),
    st.integers(0, 100),
)
def test_take_is_an_index_that_stays_within_the_rows(
    seed: int, n: int, unit: int, count: int
) -> None:
    rows, ids = rows_and_ids(seed, n, unit, (count,))
    same_bytes(take(jnp.asarray(rows), jnp.asarray(ids)), rows[np.clip(ids, 0, n - 1)])


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.sampled_from([(128, 128), (128, 16), (128, 8), (4, 4), (24, 3)]),
    st.sampled_from([np.float32, jnp.bfloat16]),
    st.booleans(),
)
def test_put_replaces_rows_and_leaves_out_what_is_beyond(
    seed: int, lines: int, widths: tuple[int, int], dtype: Any, donated: bool
) -> None:
    width, unit = widths
    table, _ = rows_and_ids(seed, lines, width, (1,), dtype)
    rows = table.reshape(-1, unit)
    ids = np.random.default_rng(seed).permutation(np.arange(-3, len(rows) + 5))[: len(rows)]
    new, _ = rows_and_ids(seed + 1, len(ids), unit, (1,), dtype)
    want = rows.copy()
    there = (ids >= 0) & (ids < len(rows))
    want[ids[there]] = new[there]
    replace = jax.jit(put, donate_argnums=0) if donated else put
    before = jnp.array(table)
    same_bytes(replace(before, jnp.asarray(ids, jnp.int32), new), want.reshape(table.shape))
    if not donated:
        same_bytes(before, table)


def test_put_in_place() -> None:
    table = jnp.zeros((100_000, 128))
    ids = jnp.arange(1000, dtype=jnp.int32)
    step = jax.jit(lambda t: put(t, ids, t.reshape(-1, 16)[:1000] + 1.0), donate_argnums=0)
    compiled = step.lower(table).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1_000_000
    where = table.unsafe_buffer_pointer()
    table = step(table)
    assert table.unsafe_buffer_pointer() == where
    assert float(table.sum()) == 16_000.0


@pytest.mark.parametrize("shape", [(BLOCK - 1, 3), (BLOCK, 1), (BLOCK + 1, 26), (5 * BLOCK, 2)])
def test_many_blocks(shape: tuple[int, int]) -> None:
    rows, ids = rows_and_ids(0, 50_000, 16, shape)
    for _ in range(5):  # who takes which block is another matter each time
        same_bytes(pick(jnp.asarray(rows), jnp.asarray(ids)), want_picked(rows, ids))


def test_calls_at_the_same_time() -> None:
    """More callers than XLA has threads, so that nobody may wait for help."""
    step = jax.jit(pick)

    def one(seed: int) -> None:
        rows, ids = rows_and_ids(seed, 1000 + seed, 16, (2 * BLOCK, 3))
        for _ in range(20):
            same_bytes(step(rows, ids), want_picked(rows, ids))

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(one, range(24)))


def test_calls_that_do_not_depend_on_each_other_in_one_program() -> None:
    rows, ids = rows_and_ids(0, 1000, 16, (2 * BLOCK, 2))

    @jax.jit
    def many(rows: jax.Array, ids: jax.Array) -> list[jax.Array]:
        return [pick(rows + i, ids) for i in range(16)]

    rows = np.arange(16_000, dtype=np.float32).reshape(1000, 16)
    for i, found in enumerate(many(rows, ids)):
        same_bytes(found, want_picked(rows + np.float32(i), ids))


def test_memory_is_given_back_when_what_is_read_first_lies_elsewhere() -> None:
    """A result of 10 MB that is held keeps the next one from its place."""
    calls: list[int] = []
    trim = ctypes.CFUNCTYPE(None, ctypes.c_long)(calls.append)
    table, other, ids = jnp.ones((100, 100)), jnp.ones((100, 100)), jnp.zeros(25_000, jnp.int32)
    read = jax.jit(take, static_argnums=2)
    before = PLACES.copy()
    try:
        held = [read(table, ids, True).block_until_ready()]  # malloc is left alone
        PLACES[:] = 0
        PLACES[0] = ctypes.cast(trim, ctypes.c_void_p).value
        counts = []
        for rows, first in [(table, True), (table, True), (table, False), (other, True)]:
            held.append(read(rows, ids, first).block_until_ready())
            counts.append(len(calls))
        assert counts == [1, 2, 2, 3]
        assert PLACES[1] == 2  # tables
    finally:
        PLACES[:] = before


def test_each_device_of_a_mesh_reads_its_own_rows() -> None:
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    rows, ids = rows_and_ids(0, 800, 16, (8 * 512, 3))
    split = PartitionSpec("data")
    found = jax.jit(jax.shard_map(pick, mesh=mesh, in_specs=(split, split), out_specs=split))(
        rows, ids
    )
    want = [want_picked(r, i) for r, i in zip(np.split(rows, 8), np.split(ids, 8), strict=True)]
    same_bytes(found, np.concatenate(want))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("tables", [(0, 0, 0), (0, 1, 2), (1, 0, 1)])
def test_derivatives_are_those_of_xla(tables: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.normal(size=(40, 5)), dtype)
    ids = rng.integers(0, 13, (30, 3)) + 14 * np.array(tables)  # up to 40, one beyond the rows
    ids[rng.random(ids.shape) < 0.1] = -1
    index = jnp.asarray(ids, jnp.int32)
    weights = jnp.asarray(rng.normal(size=(30, 3, 5)), dtype)

    def loss(pick: Any, rows: jax.Array) -> jax.Array:
        return jnp.sum(weights * jnp.square(pick(rows, index)))

    mine = partial(pick, tables=tables)
    for derivative in (jax.grad, jax.jacfwd, jax.hessian):
        found = derivative(partial(loss, mine))(rows)
        want = derivative(partial(loss, xla_pick))(rows)
        np.testing.assert_array_equal(found, want)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.sampled_from([1, 2, 3, 7, 8, 9, 16, 24, 32, 48, 65]),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
    st.integers(0, 80),
)
def test_sums_are_those_of_xla_to_the_last_bit(
    seed: int, each: int, unit: int, tables: list[int], batch: int
) -> None:
    """Tables may have several columns; ids come again, and some are none or beyond the rows."""
    rng = np.random.default_rng(seed)
    ids = np.array(tables) * each + rng.integers(0, each, (batch, len(tables)))
    ids[rng.random(ids.shape) < 0.1] = NONE
    ids[rng.random(ids.shape) < 0.1] = -1
    gradient = jnp.asarray(rng.normal(size=(*ids.shape, unit)), jnp.float32)
    rows, index = jnp.zeros((4 * each, unit)), jnp.asarray(ids, jnp.int32)
    (found,) = jax.vjp(lambda rows: pick(rows, index, tables), rows)[1](gradient)
    (want,) = jax.vjp(lambda rows: xla_pick(rows, index), rows)[1](gradient)
    same_bytes(found, np.asarray(want))


def test_many_sums_at_once() -> None:
    rng = np.random.default_rng(0)
    ids = jnp.asarray(np.arange(26) * 500 + rng.integers(0, 500, (BLOCK, 26)), jnp.int32)
    gradient = jnp.asarray(rng.normal(size=(BLOCK, 26, 16)), jnp.float32)
    rows = jnp.zeros((13_000, 16))
    (want,) = jax.vjp(lambda rows: xla_pick(rows, ids), rows)[1](gradient)
    back = jax.jit(lambda g: jax.vjp(lambda rows: pick(rows, ids, range(26)), rows)[1](g)[0])
    for _ in range(5):
        same_bytes(back(gradient), np.asarray(want))


def test_the_derivative_waits_for_what_it_is_told_to() -> None:
    """A dependence that the compiled program shows, and that changes no number."""
    rows, ids = jnp.ones((10, 4)), jnp.asarray([[1], [1], [3]], jnp.int32)

    def back(awaited: bool, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        other = jnp.sin(x)
        after = [other] if awaited else []
        _, backward = jax.vjp(lambda rows: picking.pick(rows, ids, after=after), rows)
        return backward(jnp.ones((3, 4)))[0], other

    for awaited in (False, True):
        compiled = jax.jit(partial(back, awaited)).lower(jnp.float32(1.0)).compile()
        (call,) = [x for x in compiled.as_text().splitlines() if f'"{register.SUM}"' in x]
        operands = call.split("custom-call(")[1].split(")")[0].split(", ")
        assert len(operands) == 4 + awaited
        found, _ = compiled(jnp.float32(1.0))
        np.testing.assert_array_equal(found[:4, 0], [0.0, 2.0, 0.0, 1.0])


def test_derivatives_of_put_are_those_of_xla() -> None:
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(4, 8)), jnp.float32)
    new = jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
    ids = jnp.asarray([15, 20, 3], jnp.int32)

    def xla(table: jax.Array, ids: jax.Array, new: jax.Array) -> jax.Array:
        return table.reshape(-1, 2).at[ids].set(new, mode="drop").reshape(table.shape)

    def loss(put: Any, table: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.sum(jnp.arange(32.0).reshape(4, 8) * jnp.square(put(table, ids, new)))

    for derivative in (jax.grad, jax.jacfwd):
        found = derivative(partial(loss, put), argnums=(0, 1))(table, new)
        want = derivative(partial(loss, xla), argnums=(0, 1))(table, new)
        jax.tree.map(np.testing.assert_array_equal, found, want)


def test_under_vmap() -> None:
    rows, ids = rows_and_ids(0, 40, 5, (6, 30, 3))
    batched = jax.vmap(pick, in_axes=(None, 0))(rows, ids)
    same_bytes(batched, np.stack([want_picked(rows, i) for i in ids]))


def test_derivatives_under_vmap() -> None:
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.normal(size=(6, 40, 5)), jnp.float32)
    ids = jnp.asarray(rng.integers(0, 40, (30, 3)), jnp.int32)

    def loss(pick: Any, rows: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(pick(rows, ids)))

    found = jax.jit(jax.vmap(jax.grad(partial(loss, pick))))(rows)
    np.testing.assert_array_equal(found, jax.vmap(jax.grad(partial(loss, xla_pick)))(rows))


def test_a_jaxlib_that_refuses_the_kernels_moves_rows_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise jax.errors.JaxRuntimeError("API version (0.3) is incompatible")

    monkeypatch.setattr(register, "_STATE", [])
    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    rows, ids = rows_and_ids(0, 40, 8, (30, 3))
    table, some = jnp.asarray(rows), jnp.arange(35, 45, dtype=jnp.int32)
    for found, want in [
        (pick(table, jnp.asarray(ids)), want_picked(rows, ids)),
        (take(table, jnp.asarray(ids[:, 0])), rows[np.clip(ids[:, 0], 0, 39)]),
        (put(table, some, table[:10]), np.concatenate([rows[:35], rows[:5]])),
    ]:
        same_bytes(found, want)
    gradient = jax.grad(lambda rows: pick(rows, jnp.asarray([[1, 1, NONE]])).sum())(table)
    np.testing.assert_array_equal(gradient[:3, 0], [0.0, 2.0, 0.0])
    assert [record.message for record in caplog.records] == [
        "rows on CPUs are moved by XLA's own loops, more slowly: API version (0.3) is incompatible"
    ]


PROGRAM = """
import jax, numpy as np
from monolith_jax.embedding._cpu.kernels import BLOCK
from monolith_jax.embedding._cpu.picking import pick
rows = np.arange(160, dtype=np.float32).reshape(10, 16)
ids = np.arange(4 * BLOCK, dtype=np.int32).reshape(-1, 2) % 10
assert np.array_equal(jax.jit(pick)(rows, ids), rows[ids].reshape(len(ids), -1))
"""


def test_a_kernel_from_the_cache_runs_in_another_process(tmp_path: Path) -> None:
    """Its threads' function lies elsewhere there."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environment.pop("NUMBA_CACHE_DIR", None)
    kept = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
        files = sorted(tmp_path.rglob("*.nbc"))
        kept.append([(path.name, path.stat().st_mtime_ns) for path in files])
    assert len(kept[0]) == 7
    assert kept[0] == kept[1]


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file"), "JAX_PLATFORMS": "cpu"}
    environment.pop("NUMBA_CACHE_DIR", None)
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
