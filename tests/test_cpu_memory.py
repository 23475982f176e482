"""Memory that steps on CPUs keep: which options, what malloc does with them, pages of tables."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.ahead.signature import digest
from monolith_jax.cpu_memory import HEAP, step_options, use_huge_pages
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.models import DeepFMConfig
from monolith_jax.planning.expected import expected_batch
from monolith_jax.task import InputConfig, TaskConfig
from monolith_jax.training.program import Program

FLAG = "xla_multiheap_size_constraint_per_heap"
DEVICES = "--xla_force_host_platform_device_count=8"
FEW = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
CPU = SimpleNamespace(platform="cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc, Linux's pages")


def task(batch: int) -> TaskConfig:
    return TaskConfig(
        input=InputConfig(batch_size=batch),
        tables=(TableConfig(name="t", vocab_size=100, dim=16),),
        features=(FeatureConfig(name="f", table="t", max_length=10),),
        model=DeepFMConfig(vectors=("f",), biases=(), hidden=(32, 4)),
    )


@linux
def test_a_cpu_step_has_step_options_where_its_temporaries_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XLA_FLAGS", DEVICES)
    assert step_options(CPU) == step_options(CPU, HEAP) == {FLAG: HEAP} | FEW
    assert step_options(CPU, HEAP + 1) == FEW
    assert step_options(SimpleNamespace(platform="tpu")) == {}
    monkeypatch.setenv("XLA_FLAGS", f"--{FLAG}=1000")
    assert step_options(CPU) == FEW


@linux
def test_a_program_knows_its_largest_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", DEVICES)
    # 10 ids of 16 numbers are more than the widest layer, 32: 640 bytes an example.
    most = HEAP // 640
    assert Program(task(most), jax.devices()[:1]).compiler_options == {FLAG: HEAP} | FEW
    assert Program(task(most + 1), jax.devices()[:1]).compiler_options == FEW
    assert Program(task(2 * most), jax.devices()[:2]).compiler_options == {FLAG: HEAP} | FEW


@linux
def test_a_saved_step_is_another_with_other_options(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for flags in (DEVICES, DEVICES, f"{DEVICES} --{FLAG}=1000"):
        monkeypatch.setenv("XLA_FLAGS", flags)
        program = Program(task(8), jax.devices()[:1])
        window = program.abstract_checkpoint()["window"]
        digests.append(digest(program, (program.abstract_state(), window, expected_batch(program))))
    assert digests[0] == digests[1] != digests[2]


FAULTS = """
import resource, sys, threading
from monolith_jax.cpu_memory import keep_freed_memory

def work():
    for _ in range(3):
        block = b"x" * 180_000_000
        del block
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * 180_000_000
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if "keep" in sys.argv:
    assert keep_freed_memory()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@linux
@pytest.mark.skipif(not Path("/lib/x86_64-linux-gnu/libc.so.6").exists(), reason="glibc")
def test_freed_memory_is_kept_by_who_asks_for_it() -> None:
    faults = [
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, *flags],
                env={"PYTHONPATH": str(Path(__file__).parents[1])},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for flags in ([], ["keep"])
    ]
    assert faults[0] > 10_000  # pages of 4 KiB; 180 MB have 44,000
    assert faults[1] < 1000


TWO_THREADS = """
import threading
from pathlib import Path
from monolith_jax.cpu_memory import keep_freed_memory, give_back
import jax.numpy as jnp

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def work():
    block = b"x" * 150_000_000
    del block

here = jnp.zeros(3)
assert keep_freed_memory()
before = resident()
for _ in range(3):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
work()
kept = resident()
assert give_back(here)
print(kept - before, resident() - before)
"""


@linux
@pytest.mark.skipif(not Path("/lib/x86_64-linux-gnu/libc.so.6").exists(), reason="glibc")
def test_threads_share_what_is_kept_and_it_can_be_given_back() -> None:
    command = [sys.executable, "-c", TWO_THREADS]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert 140e6 < kept < 200e6  # one block, not one of each thread
    assert left < 20e6


def test_huge_pages_change_no_value() -> None:
    table = jax.random.normal(jax.random.key(0), (3000, 1024))
    want, where = np.array(table), table.unsafe_buffer_pointer()
    moved = use_huge_pages({"table": table, "small": jnp.zeros(3), "none": None})
    assert moved % (2 << 20) == 0
    assert moved <= table.nbytes
    np.testing.assert_array_equal(table, want)
    assert table.unsafe_buffer_pointer() == where


@linux
def test_huge_pages_are_in_use() -> None:
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("this system has no huge pages")
    assert use_huge_pages([jnp.zeros((5000, 1024))]) >= 16 << 20
