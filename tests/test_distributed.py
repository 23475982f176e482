"""Finding each other: every way it can fail is one line that says who, where and what to do."""

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jax
import pytest

from monolith_jax import _rendezvous, distributed
from monolith_jax.errors import ConfigError, UserError

VERSIONS = {"jax": "0.10.2"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def hello(process: int, processes: int = 2, **changes: Any) -> dict[str, Any]:
    base = {"process": process, "processes": processes, "host": f"h{process}", "versions": VERSIONS}
    return base | changes


def meet(callers: list[dict[str, Any]], count: int = 2, timeout: float = 10.0) -> list[str]:
    """Returns how the rendezvous ended for process 0 and for each caller: "" or the message."""
    port = free_port()
    ends = [""] * (len(callers) + 1)

    def run(i: int, join: Callable[[], None]) -> None:
        try:
            join()
        except UserError as error:
            ends[i] = str(error)

    joins: list[Callable[[], None]] = [
        lambda: _rendezvous.gather(port, hello(0, count), timeout),
        *(lambda c=c: _rendezvous.call("127.0.0.1", port, c, 10.0) for c in callers),
    ]
    threads = [threading.Thread(target=run, args=(i, join)) for i, join in enumerate(joins)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return ends


def test_all_meet() -> None:
    assert meet([hello(2, 3), hello(1, 3)], 3) == ["", "", ""]


def test_the_missing_are_named_to_everybody() -> None:
    for message in meet([hello(2, 4)], 4, timeout=1.0):
        assert "waited 1 s for 4 processes; missing: process 1, 3." in message
        assert "let TCP port" in message


def test_two_with_one_number() -> None:
    (message, *_) = meet([hello(1, 3), hello(1, 3, host="other")], 3)
    assert "two processes have --process-id 1: on " in message
    assert "other" in message


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any]], int]]:
    """Calls process 0, before it looks, and is gone at once; returns the port."""
    server = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(_rendezvous, "_listen", lambda port: server)
    port = int(server.getsockname()[1])

    def call(line: dict[str, Any]) -> int:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(json.dumps(line).encode() + b"\n")
        return port

    yield call
    server.close()


def test_who_is_started_again_takes_the_place_of_its_earlier_self(
    killed: Callable[[dict[str, Any]], int],
) -> None:
    port = killed(hello(1, 3))
    ends: list[str] = []

    def call(line: dict[str, Any]) -> None:
        try:
            _rendezvous.call("127.0.0.1", port, line, 10.0)
        except UserError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=call, args=(hello(i, 3),)) for i in (1, 2)]
    for thread in threads:
        thread.start()
    _rendezvous.gather(port, hello(0, 3), 10.0)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert ends == []


def test_who_has_called_and_is_gone_is_missing(killed: Callable[[dict[str, Any]], int]) -> None:
    port = killed(hello(1))
    with pytest.raises(UserError, match=r"waited 0.5 s for 2 processes; missing: process 1\."):
        _rendezvous.gather(port, hello(0), 0.5)


def test_other_numbers_and_versions_are_told_apart() -> None:
    for message in meet([hello(1, 3)]):
        assert "process 1 on h1 was started with --processes 3, process 0 on h0 with 2" in message
    for message in meet([hello(1, versions={"jax": "0.12.0"})]):
        assert "jax is 0.10.2 on h0 and 0.12.0 on h1: install one version" in message


def test_a_stranger_at_the_port_is_ignored() -> None:
    port = free_port()
    found: list[str] = []

    def gather() -> None:
        try:
            _rendezvous.gather(port, hello(0), 10.0)
        except UserError as error:
            found.append(str(error))

    thread = threading.Thread(target=gather)
    thread.start()
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            break
        except ConnectionRefusedError:
            continue
    _rendezvous.call("127.0.0.1", port, hello(1), 10.0)
    thread.join(30)
    assert not thread.is_alive()
    assert found == []


def test_a_coordinator_that_cannot_be_reached() -> None:
    port = free_port()
    wanted = rf"cannot reach the coordinator, process 0, at 127.0.0.1:{port} within 0.3 s: the "
    with pytest.raises(UserError, match=wanted + "connection was refused: nothing listens there"):
        _rendezvous.call("127.0.0.1", port, hello(1), 0.3)
    with pytest.raises(UserError, match=r"the name is not known .*check --coordinator"):
        _rendezvous.call("no-such-host.invalid", port, hello(1), 0.3)


def test_a_port_that_another_run_holds() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"process 0 cannot listen on port {port}"):
            _rendezvous.gather(port, hello(0), 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h:1", 2, None), "--process-id missing: --coordinator, --processes, --process-id go"),
        (("h", 2, 0), "--coordinator 'h': expected HOST:PORT"),
        (("h:99999", 2, 0), "expected HOST:PORT"),
        (("h:1", 2, 2), "--process-id 2: with --processes 2, valid are 0 to 1"),
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


def test_hosts_of_unequal_device_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        def __init__(self, process: int) -> None:
            self.process_index = process

    monkeypatch.setattr(jax, "devices", lambda: [Device(0), Device(0), Device(1)])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"unequal numbers of devices \(process 0: 2, process 1: 1"):
        distributed.check_devices()


class Service:
    """jax's coordination service as far as `distributed` uses it, for processes in one thread."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        assert allow_overwrite or key not in self.values
        self.values[key] = value


@pytest.mark.parametrize("asked", range(4))
@pytest.mark.parametrize("lags", [(0, 0), (0, 3), (3, 0), (1, 2)])
def test_all_processes_stop_at_one_poll(
    asked: int, lags: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from monolith_jax.preemption import Preemption

    service = Service()
    monkeypatch.setattr(distributed, "_client", lambda: service)
    monkeypatch.setattr(distributed, "_try_get", service.values.get)
    monkeypatch.setattr(distributed, "_key", lambda kind: kind)
    locals_ = [Preemption(), Preemption()]
    flags = [distributed.AgreedPreemption(local) for local in locals_]
    stops: list[int | None] = [None, None]
    for tick in range(20):  # one process is up to three polls ahead of the other
        if tick == asked + 3:
            locals_[1].signal = 15
        for process, flag in enumerate(flags):
            poll = tick - lags[process]
            if poll >= 0 and stops[process] is None:
                monkeypatch.setattr(distributed, "is_primary", lambda process=process: process == 0)
                if flag.requested:
                    stops[process] = poll
    assert stops[0] is not None
    assert stops[0] == stops[1]


def test_any_error_of_one_process_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def exchange(value: Any) -> list[Any]:
        told.append(value)
        return [value, None]

    def fail() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "from_all", exchange)
    with pytest.raises(ZeroDivisionError):
        distributed.primary_first(fail)
    assert told == ["process 0: by zero"] * 2


def test_all_or_none_of_the_processes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: list[Any] = []
    channels: list[Any] = []

    def exchange(value: Any, channel: str, seconds: float | None) -> list[Any]:
        channels.append((channel, seconds))
        return [value, *theirs]

    def fail() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "from_all", exchange)
    theirs[:] = [None]
    assert distributed.all_or_none(lambda: 3, "upload", 9.0) == 3
    with pytest.raises(ZeroDivisionError):  # this one's own error as it is
        distributed.all_or_none(fail, "upload")
    theirs[:] = ["process 1: no space left"]
    with pytest.raises(UserError, match="process 1: no space left"):
        distributed.all_or_none(lambda: 3, "upload")
    assert channels == [("upload", 9.0), ("upload", None), ("upload", None)]


def test_each_channel_counts_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    monkeypatch.setattr(distributed, "_counters", {})
    monkeypatch.setattr(distributed, "_client", lambda: service)
    monkeypatch.setattr(distributed, "_wait", lambda *_: '"word"')
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for channel in ("all", "upload-0", "upload-0", "all"):
        assert distributed.from_all("mine", channel) == ["word", "word"]
    assert list(service.values) == [
        f"monolith_jax/{word}/0" for word in ("all/0", "upload-0/0", "upload-0/1", "all/1")
    ]
