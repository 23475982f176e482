"""One step to stop at, for all processes."""

from typing import Any

import pytest

from monolith_jax.distributed import AgreedPreemption, _preemption, _service
from monolith_jax.preemption import Preemption


@pytest.mark.parametrize("asked", range(4))
@pytest.mark.parametrize("lags", [(0, 0), (0, 3), (3, 0), (1, 2)])
def test_all_processes_stop_at_one_poll(
    asked: int, lags: tuple[int, int], service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_service, "client", lambda: service)
    monkeypatch.setattr(_service, "try_get", service.values.get)
    monkeypatch.setattr(_service, "key", lambda kind: kind)
    locals_ = [Preemption(), Preemption()]
    flags = [AgreedPreemption(local) for local in locals_]
    stops: list[int | None] = [None, None]
    for tick in range(20):  # one process is up to three polls ahead of the other
        if tick == asked + 3:
            locals_[1].signal = 15
        for process, flag in enumerate(flags):
            poll = tick - lags[process]
            if poll >= 0 and stops[process] is None:
                monkeypatch.setattr(_preemption, "is_primary", lambda process=process: process == 0)
                if flag.requested:
                    stops[process] = poll
    assert stops[0] is not None
    assert stops[0] == stops[1]
