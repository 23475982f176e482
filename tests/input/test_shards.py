"""Positions of hosts in their files, and batch sizes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monolith_jax.errors import ConfigError
from monolith_jax.input.shards import ShardPosition, batch_sizes, num_hosts, shard_positions


@given(
    files=st.lists(st.integers(0, 50), max_size=20),
    shards=st.integers(1, 5),
    done=st.integers(0, 300),
)
def test_every_example_before_the_position_is_read_and_none_after(
    files: list[int], shards: int, done: int
) -> None:
    """Reading example by example, as a host does, ends where the position says."""
    for shard, position in enumerate(shard_positions(files, shards, done)):
        own = files[shard::shards]
        assert sum(own[: position.files]) + position.examples == min(done, sum(own))
        if position.files < len(own):
            assert 0 <= position.examples < own[position.files]
        else:
            assert position.examples == 0


def test_a_large_file_stops_the_count() -> None:
    assert shard_positions([10, 100, 10], 1, 24) == [ShardPosition(1, 14)]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        shard_positions([1], 0, 1)
    with pytest.raises(ConfigError, match="negative"):
        shard_positions([1, -1], 1, 1)
    with pytest.raises(ConfigError, match="negative"):
        shard_positions([1], 1, -1)


@given(per_device=st.integers(1, 100), hosts=st.integers(1, 50), devices=st.integers(1, 8))
def test_batch_sizes_go_both_ways(per_device: int, hosts: int, devices: int) -> None:
    total = per_device * hosts * devices
    for one, all_ in ((per_device, None), (None, total), (per_device, total)):
        assert batch_sizes(one, all_, hosts, devices) == (per_device, total)
    if hosts * devices > 1:
        with pytest.raises(ConfigError, match="does not divide evenly"):
            batch_sizes(None, total + 1, hosts, devices)
    with pytest.raises(ConfigError, match=f"makes {total}, but"):
        batch_sizes(per_device, total + 1, hosts, devices)


def test_hosts_of_a_cluster_that_jax_does_not_see_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Resolver:
        def cluster_spec(self) -> Any:
            return self

        def num_tasks(self, job: str) -> int:
            return {"worker": 3}[job]

    assert num_hosts(Resolver()) == 3
    assert "3 workers, but jax runs in 1 processes" in caplog.text
    assert num_hosts() == jax.process_count()


def test_importing_it_needs_no_tensorflow(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from monolith_jax.core import util\n"
        "util.range_dateset(['d/20200501/part'], 'd')\n"
        "util.get_checkpoint_completed_step_number(sys.argv[1])\n"
        "sys.exit(bool({'tensorflow', 'gcsfs', 'orbax.checkpoint'} & set(sys.modules)))\n"
    )
    run = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.run(run, timeout=120, check=False).returncode == 0
