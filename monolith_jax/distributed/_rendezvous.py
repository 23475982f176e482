"""All processes of a run meet at one address, or each says who is missing, and why.

Before jax's own coordination service takes the port, process 0 listens there and the others call.
jax's service waits too, but a process that waits in vain is aborted with a page of internals; here
it ends with a line that names the processes, the address and the port.

A caller sends one line of JSON, `{"process", "processes", "host", "versions"}`, and gets one line
back: `{"error": null}` once everybody is there, else `{"error": why}`. Until then its connection
stays open: a caller that has hung up counts as missing again, and may call once more.
"""

import json
import logging
import socket
import time
from typing import Any

from monolith_jax.distributed._messages import numbers
from monolith_jax.errors import UserError

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2
_LINE = 1 << 16
_SECONDS = 5.0  # that a caller has for its line, and to take the answer
_ALIVE_SECONDS = 5  # without a word, before the kernel asks whether a caller's host is there still


def gather(port: int, hello: dict[str, Any], timeout: float) -> None:
    """Process 0: returns when all the others have called.

    Args:
      port: to listen on, at every address of this host.
      hello: this process's own line.
      timeout: in seconds.

    Raises:
      UserError: somebody is missing (names who), two have one number, or they do not fit together.
    """
    count, deadline = hello["processes"], time.monotonic() + timeout
    callers: dict[int, tuple[dict[str, Any], socket.socket]] = {}
    error: str | None = None
    done = False
    try:
        with _listen(port) as server:
            while error is None:
                _drop_gone(callers)
                if len(callers) == count - 1:
                    break
                server.settimeout(max(deadline - time.monotonic(), 0.01))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    error = _missing(set(range(1, count)) - callers.keys(), count, port, timeout)
                    break
                error = _receive(connection, hello, callers)
        done = True
    finally:
        # Ctrl-C here must not tell the others that all are present.
        answer = error if done else error or "process 0 was stopped while it waited"
        for _, connection in callers.values():
            _answer(connection, answer)
    if error:
        raise UserError(error)


def call(host: str, port: int, hello: dict[str, Any], timeout: float) -> None:
    """Another process: returns when process 0 says that everybody is there.

    Raises:
      UserError: the address cannot be reached, or what process 0 found wrong.
    """
    deadline = time.monotonic() + timeout
    connection = _connect(host, port, hello, timeout)
    with connection:
        connection.sendall(json.dumps(hello).encode() + b"\n")
        # Process 0 may have started later than this process, and waits as long.
        connection.settimeout(max(deadline - time.monotonic(), 0) + timeout)
        try:
            line = connection.makefile("rb").readline(_LINE)
            error = json.loads(line)["error"]
        except (OSError, ValueError, KeyError) as broken:
            raise UserError(
                f"process {hello['process']} reached process 0 at {host}:{port}, which then went "
                f"away without an answer ({broken}); see its own message"
            ) from broken
    if error:
        raise UserError(error)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on port {port}: {error.strerror}; another run may hold it: "
            "end that, or take another port in --coordinator on every host"
        ) from error


def _receive(
    connection: socket.socket,
    hello: dict[str, Any],
    callers: dict[int, tuple[dict[str, Any], socket.socket]],
) -> str | None:
    """Takes in a caller; returns what is wrong with it, if anything is."""
    try:
        _keep_alive(connection)
        connection.settimeout(_SECONDS)
        line = connection.makefile("rb").readline(_LINE)
        found = json.loads(line)
        number, host = int(found["process"]), str(found["host"])
        others, versions = int(found["processes"]), dict(found["versions"])
    except (OSError, ValueError, KeyError, TypeError):
        connection.close()  # a port scanner, a health check: not one of us
        return None
    _drop_gone(callers)  # this may be one that was started again
    seen = callers.get(number)
    callers[len(callers) + hello["processes"] if seen or number == 0 else number] = (
        found,
        connection,
    )
    if others != hello["processes"]:
        return (
            f"process {number} on {host} was started with --processes {others}, process 0 on "
            f"{hello['host']} with {hello['processes']}"
        )
    if seen or number == 0:
        first = seen[0]["host"] if seen else hello["host"]
        return (
            f"two processes have --process-id {number}: on {first} and on {host}; the hosts are "
            f"numbered 0 to {others - 1}"
        )
    for package, version in hello["versions"].items():
        if versions.get(package) != version:
            return (
                f"{package} is {version} on {hello['host']} and {versions.get(package)} on "
                f"{host}: install one version on all hosts"
            )
    return None


def _keep_alive(connection: socket.socket) -> None:
    """Lets the connection end when the caller's host is gone without having said so."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": _ALIVE_SECONDS, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
    for name, value in options.items():
        if hasattr(socket, name):  # macOS has not all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _drop_gone(callers: dict[int, tuple[dict[str, Any], socket.socket]]) -> None:
    """Forgets the callers that have hung up: killed, perhaps about to be started again."""
    for number, (found, connection) in list(callers.items()):
        if _gone(connection):
            _log.warning("process %d on %s had called and is gone", number, found["host"])
            connection.close()
            del callers[number]


def _gone(connection: socket.socket) -> bool:
    """Returns whether a caller has hung up; it sends nothing after its line."""
    connection.settimeout(0.0)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(_SECONDS)


def _missing(missing: set[int], count: int, port: int, timeout: float) -> str:
    who = ", ".join(map(str, sorted(missing)[:16])) + (", ..." if len(missing) > 16 else "")
    return (
        f"waited {timeout:g} s for {count} processes; missing: process {who}. Start the command on "
        f"every host (with --process-id {numbers(1, count - 1)}), and let TCP port {port} of "
        "process 0's host be open to them"
    )


def _answer(connection: socket.socket, error: str | None) -> None:
    try:
        connection.sendall(json.dumps({"error": error}).encode() + b"\n")
    except OSError as gone:
        _log.warning("a process that had called is gone: %s", gone)
    finally:
        connection.close()


def _connect(host: str, port: int, hello: dict[str, Any], timeout: float) -> socket.socket:
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            return socket.create_connection((host, port), timeout=max(left, 0.1))
        except socket.gaierror as error:
            why, advice = f"the name is not known ({error.strerror})", "check --coordinator"
        except ConnectionRefusedError:
            why = "the connection was refused: nothing listens there"
            advice = "is process 0 running on that host, with the same --coordinator?"
        except OSError as error:
            why = f"no answer ({error.strerror or error})"
            advice = f"open TCP port {port} from this host to that one in the firewall"
        if time.monotonic() + _RETRY_SECONDS > deadline:
            raise UserError(
                f"process {hello['process']} on {hello['host']} cannot reach the coordinator, "
                f"process 0, at {host}:{port} within {timeout:g} s: {why}; {advice}"
            )
        time.sleep(_RETRY_SECONDS)
