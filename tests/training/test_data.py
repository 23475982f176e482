"""How batches are prepared ahead."""

import pytest

from monolith_jax.task import InputConfig
from monolith_jax.training import data


@pytest.mark.parametrize(
    ("cores", "workers"), [(1, 1), (2, 1), (7, 1), (8, 2), (63, 15), (64, 16), (208, 16)]
)
def test_the_machine_chooses_the_workers(
    cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "usable_cores", lambda: cores)
    assert data.ahead(InputConfig()) == {"buffer": max(2, workers), "workers": workers}


def test_the_config_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "usable_cores", lambda: 64)
    assert data.ahead(InputConfig(workers=1)) == {"buffer": 2, "workers": 1}
    assert data.ahead(InputConfig(workers=40)) == {"buffer": 40, "workers": 40}
    assert data.ahead(InputConfig(workers=2, buffer=8)) == {"buffer": 8, "workers": 2}
