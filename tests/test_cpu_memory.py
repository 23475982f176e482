"""Memory that steps on CPUs keep: which options, what malloc does with them, pages of tables."""

import os
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

glibc = pytest.mark.skipif(
    not Path("/lib/x86_64-linux-gnu/libc.so.6").exists(), reason="how glibc's malloc does it"
)


def printed(program: str, *flags: str) -> list[int]:
    """Runs a program on one device in a process of its own; returns the numbers that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *flags],
        env={
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "JAX_PLATFORMS": "cpu",
            "HOME": os.environ["HOME"],
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


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


@glibc
def test_freed_memory_is_kept_by_who_asks_for_it() -> None:
    assert printed(FAULTS)[0] > 10_000  # pages of 4 KiB; 180 MB have 44,000
    assert printed(FAULTS, "keep")[0] < 1000


TWO_THREADS = """
import threading
from pathlib import Path
from monolith_jax.cpu_memory import PLACES, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def work():
    block = b"x" * 150_000_000
    del block

assert keep_freed_memory()
before = resident()
for _ in range(3):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
work()
assert PLACES[0] == 0  # nothing is given back where steps may overlap
print(resident() - before)
"""


@glibc
def test_threads_share_what_is_kept() -> None:
    assert 140e6 < printed(TWO_THREADS)[0] < 200e6  # one block, not one of each thread


MOVED = """
import ctypes, time
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from monolith_jax.cpu_memory import (
    PLACES, keep_freed_memory, one_step_at_a_time, step_options
)
from monolith_jax.embedding._cpu.rows import take

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

one_step_at_a_time()
assert keep_freed_memory()

@jax.jit
def make(): return jnp.ones((1000, 250)), jnp.arange(100_000, dtype=jnp.int32) % 1000

step = jax.jit(
    lambda table, ids: jnp.sin(take(table, ids, True)).sum(),
    compiler_options=step_options(),
)
arrays = make()

def run():
    step(*arrays).block_until_ready()
    time.sleep(0.1)  # results are ready shortly before the step's memory is free

run()
ctypes.CDLL(None).malloc_trim(0)
before = resident()
for _ in range(3):
    run()
there, place = resident(), int(PLACES[3])
others = []
while True:  # until one lies where the last step had its memory, in which the next has no room
    hole = np.empty(7_500_000)
    if abs(hole.ctypes.data - place) < 60_000_000:
        break
    others.append(hole)
run()
print(there - before, resident() - before, int(PLACES[3] != place))
"""


@glibc
def test_the_old_place_of_a_steps_memory_is_given_back_when_it_moves() -> None:
    there, moved, elsewhere = printed(MOVED)
    assert elsewhere
    assert 95e6 < there < 110e6
    assert 155e6 < moved < 170e6


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
