"""The kernels under numba's own bounds checks, and ours on raw loads: no record reads outside."""

import os
import subprocess
import sys
from pathlib import Path

# Runs in a process of its own: bounds checks are compiled in or not.
SCRIPT = """
import random, struct
import numpy as np
from monolith_jax.errors import DataError
from monolith_jax.input import Column, _blocks, count_records, read_columns
from monolith_jax.input._jit import helper, load64
from monolith_jax.input.write import encode_example, frame

schema = (
    Column("id", "int64"),
    Column("a_name_that_is_longer_than_sixteen_bytes", "int64", default=1),
    Column("dense", "float32", 3, default=0.5),
    Column("ids", "int64", None, (), max_length=9),
    Column("weights", "float32", None, ()),
)
for end in (0, 1, -9):
    try:
        helper(lambda buffer, at: load64(buffer, at))(np.zeros(8, np.uint8), end)
        assert end == 0, "the checks are not compiled in"
    except IndexError:
        assert end != 0

rng = random.Random(3)

def example():
    record = {"id": rng.randrange(-(2**63), 2**63), "other": [b"bytes" * rng.randrange(40)]}
    ids = [rng.randrange(2 ** rng.randrange(1, 63)) for _ in range(rng.randrange(30))]
    record["ids"] = np.array(ids, np.int64)
    record["weights"] = np.array([rng.random() for _ in range(rng.randrange(60))], np.float32)
    record["dense"] = [1.0, 2.0, 3.0]
    if rng.random() < 0.5:
        record["a_name_that_is_longer_than_sixteen_bytes"] = 3
    return encode_example(record)

def mutate(data):
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(changed))
        way = rng.randrange(3)
        if way == 0:
            changed[at] = rng.randrange(256)
        elif way == 1:
            changed[at:at] = rng.choice([bytes([255] * 9 + [127]), bytes([128] * 12), bytes([10])])
        else:
            del changed[at : at + rng.randrange(1, 9)]
            changed = changed or bytearray(1)
    return bytes(changed)

def attempt(data, **options):
    try:
        read_columns(data, schema, **options)
        return 1
    except DataError:
        return 0

good = sum(attempt(frame(mutate(example()))) for _ in range(1500))
for _ in range(300):  # lists alone: most bytes are structure
    good += attempt(frame(mutate(encode_example({"id": 1, "ids": [1, 2]}))))
whole = b"".join(frame(example()) for _ in range(20))
for block in (1, 64, 1000):  # a window that slides within records, and grows
    _blocks.BLOCK = block
    assert attempt(whole) and count_records(whole) == 20
    for skip in (False, True):
        good += sum(attempt(mutate(whole), check_crc=False, skip_damaged=skip) for _ in range(60))
for size in (0, 2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1):  # hostile lengths
    attempt(struct.pack("<Q", size) + whole, check_crc=False)
for cut in range(0, 400, 3):
    attempt(whole[:cut], check_crc=False)
print("sound:", good)
"""


def test_mutated_records_within_bounds(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Not all mutations break a record: the walk went on, to the end, under the checks.
    assert int(done.stdout.split("sound:")[1]) > 100


def test_another_cpu_takes_the_portable_checksum(tmp_path: Path) -> None:
    """NUMBA_CPU_NAME=generic has no crc32c instruction to offer: the kernels compile without it."""
    script = (
        "from monolith_jax.input import _crc, count_records\n"
        "from monolith_jax.input.write import encode_example, frame\n"
        "assert _crc.crc32c is _crc.crc32c_portable\n"
        "print(count_records(3 * frame(encode_example({'id': 42}))))\n"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "3"
