"""Two real processes on loopback, four devices each: one value, the same bits everywhere."""

import json
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("_two_processes.py")
VALUE = np.arange(8, dtype=np.float32)


@pytest.fixture(scope="module")
def seen(tmp_path_factory, process_pair):
    """What each of the two processes saw."""
    folder = tmp_path_factory.mktemp("processes")
    with process_pair(SCRIPT, folder, devices=4) as pair:
        pair.end(timeout=120)
    return [json.loads((folder / f"seen{me}.json").read_text()) for me in range(2)]


def bits(value):
    return np.asarray(value, np.float32).tobytes().hex()


def test_sees_eight_devices_four_of_them_local(seen):
    assert [s["devices"] for s in seen] == [[8, 4], [8, 4]]


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("assigned", np.sqrt(2 * VALUE)),
        ("after", np.sqrt(2 * VALUE)),
        ("whole", VALUE),
        ("from pmap", 2 * np.sqrt(2 * VALUE)),
        ("stepped", 2 * np.sqrt(2 * VALUE) + 1),
        ("restored", 2 * np.sqrt(2 * VALUE) + 1),
    ],
)
def test_every_device_of_every_process_has_the_same_bits(seen, what, value):
    assert seen[0][what] == seen[1][what] == [bits(value)] * 4


@pytest.mark.parametrize(("reduce", "value"), [("mean", 6.5 / 3), ("sum", 52 / 3), ("first", 0)])
def test_reductions_take_all_processes_replicas(seen, reduce, value):
    assert seen[0][reduce] == seen[1][reduce]
    number, parts = seen[0][reduce]
    assert number == pytest.approx(value, rel=1e-6)
    assert len(set(parts)) == 1


def test_a_global_array_is_reduced_on_the_devices(seen):
    assert seen[0]["global"] == seen[1]["global"]
    assert seen[0]["global"][0] == VALUE.sum()


def test_values_that_differ_are_refused_in_both(seen):
    assert seen[0]["differ"] == seen[1]["differ"]
    assert "'v': processes [1] bring another value than process 0" in seen[0]["differ"]
    assert "'w': processes [1]" in seen[1]["made differ"]
    for process in seen:
        assert "replicas [1, 2, 3, 4, 5, 6, 7] differ" in process["global equal"]


def test_each_process_holds_its_part_of_a_sharded_one(seen):
    assert seen[0]["sharded"] + seen[1]["sharded"] == VALUE.tolist()


def test_the_stacked_form_has_the_local_devices(seen):
    assert [s["stacked"] for s in seen] == [[4, 8], [4, 8]]


def test_a_replica_of_another_process_is_named(seen):
    for me in range(2):
        np.testing.assert_allclose(seen[me]["mine"], 2 * np.sqrt(2 * VALUE) + 1, rtol=1e-6)
        other = 1 - me
        assert f"belongs to process {other}; this is process {me}" in seen[me]["theirs"]


def test_a_broken_replica_is_seen_by_both_processes(seen):
    for process in seen:
        assert "'v': the replicas on devices [" in process["broken"]
        assert "differ from the others" in process["broken"]
