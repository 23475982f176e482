"""What importing costs: the light things stay light."""

import subprocess
import sys

import pytest

import monolith_jax

HEAVY = ("tensorflow", "gcsfs", "orbax", "numba", "matplotlib", "tensorboardX", "pyarrow", "flax")


def modules_after(statement: str) -> set[str]:
    """Returns the top-level modules loaded in a fresh process after `statement`."""
    code = f"{statement}; import sys; print(*{{m.partition('.')[0] for m in sys.modules}})"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(printed.stdout.split())


def test_import_monolith_jax_loads_nothing_heavy() -> None:
    assert not modules_after("import monolith_jax") & {*HEAVY, "jax"}


@pytest.mark.parametrize("name", ["NestedMap", "ReplicatedVariable"])
def test_a_structure_alone_needs_jax_at_most(name: str) -> None:
    assert not modules_after(f"from monolith_jax import {name}") & set(HEAVY)


def test_the_command_line_installs_its_signal_handler_before_jax() -> None:
    assert not modules_after("import monolith_jax.cli") & {*HEAVY, "jax"}


@pytest.mark.parametrize("name", monolith_jax.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(monolith_jax, name) is not None
    assert name in dir(monolith_jax)
