"""What a plan tells the TPU compiler, held against what jax tells it where there is a TPU."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install libtpu"
)


def printed(*code: str, **environment: str) -> list[str]:
    """Returns the lines that some code prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("given", ["", "--xla_tpu_use_enhanced_launch_barrier=0"])
def test_the_compilers_flags_are_those_of_a_host_with_a_tpu(given: str) -> None:
    """Else no step that `plan --save` kept would be taken there."""
    show = "import os; print(sorted(os.environ['LIBTPU_INIT_ARGS'].split()))"
    there = printed("import jax", show, JAX_FORCE_TPU_INIT="1", LIBTPU_INIT_ARGS=given)
    plan = ("from monolith_jax.planning.topology import devices_of", "devices_of('v5e:2x2')")
    assert printed(*plan, show, LIBTPU_INIT_ARGS=given) == there


def test_a_slice_of_one_host_is_one() -> None:
    """libtpu by itself takes two hosts for eight chips; 0.0.42 takes none for less than four."""
    slices = ("v5e:1x1", "v6e:1x2", "v5p:1x1x1", "tpu7x:1x2x1", "v5e:2x4", "v6e:2x4")
    lines = printed(
        "from monolith_jax.planning.topology import devices_of",
        f"for name in {slices!r}:",
        "    found = devices_of(name)",
        "    print(name, len(found), len({device.process_index for device in found}))",
    )
    counts = (1, 2, 1, 4, 8, 8)  # a chip of TPU7x is two devices
    assert lines == [f"{name} {count} 1" for name, count in zip(slices, counts, strict=True)]
