"""Joining: what must be alike on all hosts."""

import jax
import pytest

from monolith_jax import distributed
from monolith_jax.errors import UserError


def test_hosts_of_unequal_device_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        def __init__(self, process: int) -> None:
            self.process_index = process

    monkeypatch.setattr(jax, "devices", lambda: [Device(0), Device(0), Device(1)])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"unequal numbers of devices \(process 0: 2, process 1: 1"):
        distributed.check_devices()
