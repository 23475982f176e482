"""A script run as two real processes of one jax.distributed run on loopback."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Pair:
    """Two processes of `python SCRIPT NUMBER PORT FOLDER`, with CPU devices of their own.

    A context: at its end neither is left running.
    """

    def __init__(self, script: Path, folder: Path, devices: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        flags = f"--xla_force_host_platform_device_count={devices}"
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(script), str(number), str(port), str(folder)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            )
            for number in range(2)
        ]

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def end(self, timeout: float) -> list[str]:
        """Waits for a good end of both; returns what each printed."""
        printed = [process.communicate(timeout=timeout)[0] for process in self._processes]
        for number, process in enumerate(self._processes):
            assert process.returncode == 0, f"process {number}:\n{printed[number][-4000:]}"
        return printed


@pytest.fixture(scope="session")
def process_pair() -> Callable[..., Pair]:
    """`Pair`, for tests to start."""
    return Pair
