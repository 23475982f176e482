"""Signals set a flag, and a second Ctrl-C does not wait for it."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from monolith_jax.preemption import Preemption


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def test_sigterm_asks_to_stop_and_exits_with_0() -> None:
    preemption = Preemption().install()
    assert not preemption.requested
    os.kill(os.getpid(), signal.SIGTERM)
    assert preemption.requested
    assert preemption.exit_code == 0


def test_ctrl_c_asks_to_stop_and_a_second_one_kills() -> None:
    preemption = Preemption().install()
    os.kill(os.getpid(), signal.SIGINT)
    assert preemption.requested
    assert preemption.exit_code == 130
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_nothing_is_taken_over() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=Preemption().install)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
