"""Words of one thread are not taken for another's."""

from typing import Any

import jax
import pytest

from monolith_jax import distributed
from monolith_jax.distributed import _service


def test_each_channel_counts_its_own_words(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_service, "_counters", {})
    monkeypatch.setattr(_service, "client", lambda: service)
    monkeypatch.setattr(_service, "wait", lambda *_: '"word"')
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for channel in ("all", "upload-0", "upload-0", "all"):
        assert distributed.from_all("mine", channel) == ["word", "word"]
    assert list(service.values) == [
        f"monolith_jax/{word}/0" for word in ("all/0", "upload-0/0", "upload-0/1", "all/1")
    ]
