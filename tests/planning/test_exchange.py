"""What a plan takes the exchange between devices to be: as the engine sizes it, relay included."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from monolith_jax.embedding import _ragged, _relay
from monolith_jax.errors import ConfigError
from monolith_jax.planning.expected import _exchange
from monolith_jax.planning.topology import cpus_of
from monolith_jax.planning.traffic import _received


@pytest.mark.parametrize(("each", "devices"), [(3375.0, 8), (400.0, 64), (107.0, 256)])
def test_the_relay_is_planned_where_the_engine_takes_it(each: float, devices: int) -> None:
    planned = _exchange(each, devices, 27_000, pack=0)
    assert planned["relay"].shape == planned["forward"].shape
    places = planned["send"].shape[2], planned["relay"].shape[2]
    for seed in (7, 8, 9):  # other batches than the plan drew: most of them fit
        counts = np.random.default_rng(seed).poisson(each, (devices, devices))
        least = max(8, 2048 // devices)
        assert _relay.sizes(counts, least=least, most=27_000, room=places) == places
    asked = SimpleNamespace(parts=None, received=0, **planned)
    assert _received(asked, devices) == devices * (places[0] + 2 * places[1])


def test_a_few_rows_need_no_relay() -> None:
    planned = _exchange(10.0, 8, 1000, pack=0)
    assert planned.keys() == {"send"}
    assert planned["send"].shape == (8, 8, 256)


def test_the_ragged_exchange_is_planned_with_room_for_a_batch() -> None:
    planned = _exchange(107.0, 256, 27_000, pack=1)
    counts = np.random.default_rng(7).poisson(107.0, (256, 256))
    room = planned["send"].shape[1], planned["received"]
    assert _ragged.sizes(counts, 1, least=2048, most=27_000, room=room) == room
    assert _received(SimpleNamespace(**planned), 256) == planned["received"]


def test_cpus_stand_for_chips_where_there_are_enough() -> None:
    devices = jax.devices()  # before the first question, which would set their number
    assert cpus_of("cpu:4") == devices[:4]
    assert cpus_of("v5e:2x4") is None
    with pytest.raises(ConfigError, match="'cpu:4096': this process has 8 CPU devices"):
        cpus_of("cpu:4096")
