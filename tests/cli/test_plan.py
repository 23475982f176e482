"""`monolith-jax plan`: real compiles for TPUs, in a process of their own."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install libtpu"
)


SMALL = ("--input.batch_size", "512")


def plan(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "monolith_jax.cli", "plan", *arguments],
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_model_on_one_chip_and_on_chips_of_two_devices() -> None:
    done = plan("criteo.DLRM", "--topology", "v5e:1x1,tpu7x:2x2x1", "--json", *SMALL)
    assert done.returncode == 0, done.stderr
    one, four = json.loads(done.stdout)
    assert (one["model"], one["chips"], four["chips"]) == ("criteo.DLRM", 1, 4)
    # 26 tables of 100,000 rows of 16 float32, padded to whole lines in 1,024 shards.
    tables = 26 * 100_000 * 16 * 4
    assert tables <= one["values"] <= 1.01 * tables
    assert one["slots"] == one["values"]
    assert 4 * four["values"] == pytest.approx(one["values"], rel=1e-6)
    for found in (one, four):
        assert found["fits"]
        assert found["needs"] >= found["values"] + found["slots"] + found["temporary"]
        assert 0 < found["activations"] <= found["temporary"]
        assert found["bound"]["samples"] > 0
        assert found["traffic"]["flops"] > 0
    assert one["traffic"]["exchange"] == one["traffic"]["sent"] == 0
    assert four["traffic"]["exchange"] > 0


def test_rows_that_kernels_move_are_planned_for_one_chip() -> None:
    """v5e keeps values, slots and biases in records: 27 lanes of 32, a third of them values."""
    done = plan("movielens.DeepFM", "--topology", "v5e:1x1,v6e:1x1", "--json")
    assert done.returncode == 0, done.stderr
    records, words = json.loads(done.stdout)
    for found in (records, words):
        assert found["fits"]
        assert found["slots"] == pytest.approx(2 * found["values"], rel=1e-3)
        assert found["traffic"]["rows"] > 0


def test_what_does_not_fit_says_what_to_change() -> None:
    done = plan("criteo.MLPerfDLRM", "--topology", "v5e:2x2", "--input.batch_size", "4096")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "fits                     NO" in lines
    assert any("too much; all tables are sharded" in line for line in lines)
    assert any("v5e:2x2: shard over 16 chips" in line for line in lines)
    assert any("rowwise_adagrad for all tables saves" in line for line in lines)


def test_a_topology_that_is_none_is_one_line() -> None:
    done = plan("criteo.DLRM", "--topology", "v5p:3x3x3")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "topology 'v5p:3x3x3': the TPU compiler knows none" in done.stderr
