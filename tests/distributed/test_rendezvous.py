"""Meeting: every way it can fail is one line that says who, where and what to do."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from monolith_jax.distributed import _rendezvous
from monolith_jax.errors import UserError

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
        assert "every host (with --process-id 1 to 3), and let TCP port" in message
    for message in meet([], 2, timeout=0.2):
        assert (
            "missing: process 1. Start the command on every host (with --process-id 1)" in message
        )


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
