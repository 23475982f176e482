import gc
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable

import pytest

from monolith_jax.input import prefetch


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("buffer", [1, 3])
def test_results_come_in_order(workers: int, buffer: int) -> None:
    def make(k: int) -> int:
        time.sleep(0.002 * (k % 3))
        return k * k

    with prefetch(make, 5, 30, buffer=buffer, workers=workers) as squares:
        assert list(squares) == [(k, k * k) for k in range(5, 30)]


def test_no_more_than_the_buffer_is_made_ahead() -> None:
    made: list[int] = []
    with prefetch(made.append, 0, 100, buffer=3, workers=2) as steps:
        wait_for(lambda: len(made) == 3)
        assert next(steps) == (0, None)
        wait_for(lambda: len(made) == 4)
        time.sleep(0.05)
        assert sorted(made) == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_exception_comes_at_its_step_with_its_traceback(workers: int) -> None:
    def fail_at_four(k: int) -> int:
        if k == 4:
            raise RuntimeError("step four")
        return k

    steps = prefetch(fail_at_four, 0, 10, buffer=8, workers=workers)
    for k in range(4):
        assert next(steps) == (k, k)
    with pytest.raises(RuntimeError, match="step four") as caught:
        next(steps)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert "fail_at_four" in [frame.name for frame in frames]
    with pytest.raises(StopIteration):
        next(steps)
    assert not any(thread.is_alive() for thread in steps._threads)


def test_nothing_to_do_and_wrong_settings() -> None:
    assert list(prefetch(lambda k: k, 3, 3)) == []
    assert list(prefetch(lambda k: k, 4, 3)) == []
    for wrong in ({"buffer": 0}, {"workers": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            prefetch(lambda k: k, 0, 1, **wrong)


def test_close_stops_the_threads_and_ends_the_iteration() -> None:
    steps = prefetch(lambda k: k, 0, 10**9, workers=3)
    assert next(steps) == (0, 0)
    steps.close()
    assert not any(thread.is_alive() for thread in steps._threads)
    assert list(steps) == []
    steps.close()


def test_a_dropped_iterator_stops_its_threads() -> None:
    steps = prefetch(lambda k: k, 0, 10**9, workers=2)
    next(steps)
    threads = steps._threads
    del steps
    gc.collect()
    wait_for(lambda: not any(thread.is_alive() for thread in threads))
    assert not any(thread.is_alive() for thread in threads)


def test_close_wakes_a_consumer_that_waits() -> None:
    go, seen = threading.Event(), []
    steps = prefetch(lambda k: go.wait(), 0, 2)
    consumer = threading.Thread(target=lambda: seen.append(list(steps)))
    consumer.start()
    closer = threading.Thread(target=steps.close)
    closer.start()
    consumer.join(0.05)
    go.set()
    consumer.join(10)
    closer.join(10)
    assert not consumer.is_alive()
    assert seen == [[]] or seen[0][0] == (0, True)


@pytest.mark.parametrize("make", ["k * k", "time.sleep(3600)"])
def test_the_interpreter_ends_though_the_consumer_stopped_early(make: str) -> None:
    script = (
        "import time\nfrom monolith_jax.input import prefetch\nimport monolith_jax.input.prefetch\n"
        "import sys\nsys.modules['monolith_jax.input.prefetch']._EXIT_SECONDS = 0.2\n"
        f"steps = prefetch(lambda k: {make}, 0, 10**9, workers=2)\n"
        "time.sleep(0.2)\nprint('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
