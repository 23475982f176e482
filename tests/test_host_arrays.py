"""Memory of batches is used again, and never too early."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from monolith_jax import _host_arrays
from monolith_jax._host_arrays import LEAST, empty

SIZE = 3 * LEAST + 4


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_host_arrays, "_FREE", {})


def place(array: np.ndarray) -> int:
    return int(array.ctypes.data)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (0,), (7, 5), (300, 200), (SIZE // 4,)])
def test_an_array_is_as_numpy_makes_it(shape: tuple[int, ...], order: str) -> None:
    found, want = empty(shape, np.int32, order), np.empty(shape, np.int32, order)  # type: ignore[arg-type, call-overload]
    assert (found.shape, found.dtype, found.strides) == (want.shape, want.dtype, want.strides)
    assert found.flags.writeable
    if found.nbytes >= LEAST:
        assert place(found) % 64 == 0


def test_memory_of_an_array_that_is_gone_is_used_again() -> None:
    first = empty((SIZE,), np.int8)
    where = place(first)
    del first
    again = empty((SIZE // 4,), np.float32)
    assert place(again) == where


def test_a_view_keeps_the_memory() -> None:
    first = empty((SIZE // 4,), np.int32)
    first[:] = 7
    view = first[5:].reshape(2, -1)[:, ::2]
    del first
    other = empty((SIZE // 4,), np.int32)
    other[:] = 8
    assert (view == 7).all()
    where = place(other)
    del view, other
    gc.collect()
    two = [empty((SIZE // 4,), np.int32) for _ in range(2)]
    assert where in map(place, two)


def test_jax_takes_it_without_a_copy_and_keeps_it() -> None:
    host = empty((SIZE // 4,), np.float32)
    host[:] = np.arange(len(host))
    want, where = host.copy(), place(host)
    array = jax.device_put(host, jax.devices()[0])
    assert array.unsafe_buffer_pointer() == where
    del host
    for _ in range(20):
        empty((SIZE // 4,), np.float32)[:] = -1
    np.testing.assert_array_equal(array, want)


def test_threads_never_share_memory() -> None:
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for i in range(200):
            array = empty((LEAST + number % 2,), np.int8)
            array[:] = number
            kept = array[i % 10 :]
            del array
            assert (kept == number).all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_what_is_kept_is_bounded() -> None:
    arrays = [empty((LEAST,), np.int8) for _ in range(3 * _host_arrays._KEPT)]
    del arrays
    assert [len(free) for free in _host_arrays._FREE.values()] == [_host_arrays._KEPT]
    for i in range(1, 2 * _host_arrays._SIZES):
        empty((i * LEAST,), np.int8)
    assert len(_host_arrays._FREE) <= _host_arrays._SIZES
