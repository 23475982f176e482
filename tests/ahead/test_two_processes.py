"""A saved step in two processes, as on the hosts of a pod: loaded by both, the same bits."""

import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("two_processes.py")


def test_two_processes_take_the_step_that_one_saved(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    flags = "--xla_force_host_platform_device_count=1"
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(port), str(number), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        )
        for number in range(2)
    ]
    try:
        printed = [process.communicate(timeout=480)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    (path,) = tmp_path.iterdir()
    for process, said in zip(running, printed, strict=True):
        assert process.returncode == 0, said
        assert f"took {path}, loaded in" in said
        assert "same: True" in said
