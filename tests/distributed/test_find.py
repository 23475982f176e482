"""Where the processes meet: the flags, checked, or what a TPU host says of its pod."""

import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from monolith_jax import distributed
from monolith_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h:1", 2, None), "--process-id missing: --coordinator, --processes, --process-id go"),
        (("h", 2, 0), "--coordinator 'h': expected HOST:PORT"),
        (("h:99999", 2, 0), "expected HOST:PORT"),
        (("h:1", 2, 2), "--process-id 2: with --processes 2, valid are 0 to 1$"),
        (("h:1", 1, 1), "--process-id 1: with --processes 1, valid is 0$"),
        (("h:1", 0, 0), "--processes 0: must be at least 1"),
        (("h:1", 2, 0, 0.0), "--cluster-timeout 0.0: must be above 0"),
        (("h:1", 2, 0, math.nan), "--cluster-timeout nan: must be above 0"),
        (("h:1", 2, 0, math.inf), r"--cluster-timeout inf: .* at most 1e\+06"),
    ],
)
def test_flags_are_checked(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        distributed.cluster_from(*arguments)


@pytest.fixture
def on_a_tpu_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A metadata server with the attributes of a pod's host; the test fills them in."""
    attributes: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            value = attributes.get(self.path.rpartition("/")[2])
            good = value is not None and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if good else 404)
            self.end_headers()
            self.wfile.write((value or "").encode())

        def log_message(self, *arguments: Any) -> None:
            """Nothing: stderr is the test's."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name in ("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    monkeypatch.setattr("os.path.exists", lambda path: path == "/dev/accel0")
    yield attributes
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_pod_is_found_in_the_metadata(on_a_tpu_host: dict[str, str]) -> None:
    assert distributed.cloud_tpu() is None
    endpoints = "unknown:unknown:10.0.0.5,unknown:unknown:10.0.0.6"
    on_a_tpu_host.update({"worker-network-endpoints": endpoints, "agent-worker-number": "1"})
    assert distributed.cluster_from(None, None, None) == distributed.Cluster("10.0.0.5:8476", 2, 1)
    on_a_tpu_host["agent-worker-number"] = ""
    with pytest.raises(ConfigError, match="the metadata's agent-worker-number '' is no number of"):
        distributed.cloud_tpu()
    on_a_tpu_host["worker-network-endpoints"] = "unknown:unknown:10.0.0.5"
    assert distributed.cloud_tpu() is None


def test_a_pod_is_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a.pod, b.pod")
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    assert distributed.cloud_tpu() == distributed.Cluster("a.pod:8476", 2, 0)
    monkeypatch.setenv("TPU_WORKER_ID", "worker-1")
    with pytest.raises(ConfigError, match="TPU_WORKER_ID 'worker-1' is no number of a host, 0 to"):
        distributed.cloud_tpu()
    monkeypatch.setenv("TPU_WORKER_ID", "2")
    with pytest.raises(ConfigError, match=r"TPU_WORKER_ID 2 is none of the 2 hosts a\.pod, b\.pod"):
        distributed.cloud_tpu()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert distributed.cloud_tpu() is None
