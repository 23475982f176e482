"""Rehearses a pod on one machine: real processes of CPU devices, a preemption, the way back.

    python examples/tpu_vm/rehearse.py movielens.DeepFM [--model-dir DIR] [--FIELD VALUE ...]

Starts `monolith-jax train` once per host with the flags that a pod without a metadata server takes,
asks one of the hosts to stop (SIGTERM, as Cloud does before it takes a spot VM away), waits until
all have saved and left at the same step, and gives the same command again, which goes on to the
end. Everything after the model's key that is not an option of this script goes to the command.

DIR is a local folder, new by default, or in a bucket: gs://BUCKET/DIR, the real service with your
credentials, or an emulator whose address is in STORAGE_EMULATOR_HOST.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from monolith_jax import storage


def free_port() -> int:
    """Returns a TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(
    arguments: Sequence[str], hosts: int, devices: int, *, only: Sequence[int] | None = None
) -> list[subprocess.Popen[str]]:
    """Starts one process a host, each with `devices` CPU devices; `only` leaves hosts out."""
    port = free_port()
    environment = dict(os.environ, JAX_PLATFORMS="cpu")
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "monolith_jax.cli", "train", *arguments]
    command += ["--coordinator", f"127.0.0.1:{port}", "--processes", str(hosts)]
    return [
        subprocess.Popen(
            [*command, "--process-id", str(host)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in (range(hosts) if only is None else only)
    ]


def finish(processes: Sequence[subprocess.Popen[str]], limit: float) -> list[str]:
    """Waits for all, ends what is still there after `limit` seconds; returns what they printed."""
    deadline, printed = time.monotonic() + limit, []
    for process in processes:
        try:
            printed.append(process.communicate(timeout=max(deadline - time.monotonic(), 1))[1])
        except subprocess.TimeoutExpired:
            process.kill()
            printed.append(process.communicate()[1] + f"\nkilled after {limit:g} s")
    return printed


def rows_bytes(model_dir: str) -> int:
    """Returns how large the file of metrics is."""
    file = storage.join(model_dir, "metrics.jsonl")
    return storage.size(file) if storage.exists(file) else 0


def wait_for_rows(
    model_dir: str, before: int, process: subprocess.Popen[str], limit: float
) -> None:
    """Returns when the metrics have a new row, the process has ended, or the time is up."""
    deadline = time.monotonic() + limit
    real_bucket = storage.is_gs(model_dir) and "STORAGE_EMULATOR_HOST" not in os.environ
    while time.monotonic() < deadline and process.poll() is None:
        if rows_bytes(model_dir) > before:
            return
        time.sleep(1.0 if real_bucket else 0.02)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the rehearsal; returns 0 if every process of both runs ended well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("key", metavar="KEY", help="the model")
    parser.add_argument("--model-dir", metavar="DIR", help="default: a new temporary folder")
    parser.add_argument("--hosts", type=int, default=2, help="processes; default: 2")
    parser.add_argument("--devices", type=int, default=4, help="CPU devices of each; default: 4")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each of the runs")
    options, rest = parser.parse_known_args(argv)
    model_dir = options.model_dir or tempfile.mkdtemp(prefix="rehearsal-")
    arguments = [options.key, "--model-dir", model_dir, *rest]
    for preempt in (True, False):
        print(f"--- {options.hosts} hosts{', one of which is preempted' if preempt else ''}")
        before = rows_bytes(model_dir)
        processes = start(arguments, options.hosts, options.devices)
        if preempt:
            wait_for_rows(model_dir, before, processes[-1], options.limit)
            processes[-1].send_signal(signal.SIGTERM)
        printed = finish(processes, options.limit)
        print(printed[0], end="")
        codes = [process.returncode for process in processes]
        if any(codes):
            print("\n".join(printed[1:]), f"exit codes {codes}", sep="\n", file=sys.stderr)
            return 1
    print(f"--- all is in {model_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
