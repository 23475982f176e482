"""Bodies of objects, read by the calling thread straight into the memory where they belong.

Through aiohttp each byte is copied four times by the one thread of its loop: out of the socket,
through the parser, and twice by joins. That suits requests with small answers (`_client`); here
`http.client` does the reading, on as many threads as want to read, with the addresses and
credentials of the same gcsfs filesystem and the same retries.
"""

import functools
import http.client
import os
import socket
import ssl
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import TypeVar

from monolith_jax.storage._client import Response, address, filesystem, retried
from monolith_jax.storage._retry import retry_policy

T = TypeVar("T")

_IDLE_S = 20.0  # a connection that was idle for longer may have been closed by the service
DOWNLOAD = "download/storage/v1/b/{}/o/{}"


def download(
    bucket: str,
    name: str,
    *,
    check: Callable[[Response], T],
    headers: Mapping[str, str],
    into: memoryview | None = None,
    stop: threading.Event | None = None,
    **query: str | int | None,
) -> T:
    """Reads an object or a range of it, with retries, and returns its checked answer.

    Args:
      bucket: its bucket.
      name: its name.
      check: as for `_client.submit`.
      headers: beyond the credentials.
      into: receives the body, and is the body of the answer, if it has as many bytes.
      stop: no more tries once it is set.
      **query: parameters; those that are None are left out.
    """
    policy = retry_policy()
    fs = filesystem(policy)
    url = urllib.parse.urlsplit(fs._format_path(address(fs, DOWNLOAD), (bucket, name)))
    target = f"{url.path}?{urllib.parse.urlencode(fs._get_params(query | {'alt': 'media'}))}"
    pool = _pool(os.getpid(), url.scheme, url.netloc)

    def once() -> T:
        import gcsfs.retry

        if stop is not None and stop.is_set():
            raise CancelledError(f"nobody waits for {name}")
        answer = pool.get(target, fs._get_headers(headers), into, policy.stall_s)
        gcsfs.retry.validate_response(answer.status, answer.body, url.path)
        return check(answer)

    return retried(once, f"GET gs://{bucket}/{name}", policy)


@functools.lru_cache(maxsize=8)
def _pool(pid: int, scheme: str, netloc: str) -> "_Pool":
    """Makes the connections of one process: they do not survive a fork."""
    return _Pool(scheme, netloc)


class _Pool:
    """Connections to one service that stay open between requests; for any number of threads."""

    def __init__(self, scheme: str, netloc: str) -> None:
        self._netloc = netloc
        self._tls = ssl.create_default_context() if scheme == "https" else None
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._idle)  # at the latest when the process ends

    def get(
        self, target: str, headers: Mapping[str, str], into: memoryview | None, stall_s: float
    ) -> Response:
        """Sends one GET and returns its answer, whatever its status."""
        connection = self._take(stall_s)
        try:
            connection.request("GET", target, headers=dict(headers))
            answer = connection.getresponse()
            found = Response(
                answer.status,
                {key.lower(): value for key, value in answer.getheaders()},
                _body(answer, into),
            )
        except (http.client.HTTPException, socket.gaierror) as error:
            connection.close()
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        except BaseException:
            connection.close()
            raise
        if not answer.will_close:
            with self._lock:
                self._idle.append((time.monotonic(), connection))
        return found

    def _take(self, stall_s: float) -> http.client.HTTPConnection:
        with self._lock:
            while self._idle:
                since, connection = self._idle.pop()
                if time.monotonic() - since < _IDLE_S and connection.timeout == stall_s:
                    return connection
                connection.close()
        if self._tls is None:
            return http.client.HTTPConnection(self._netloc, timeout=stall_s)
        return http.client.HTTPSConnection(self._netloc, timeout=stall_s, context=self._tls)


def _close(idle: list[tuple[float, http.client.HTTPConnection]]) -> None:
    while idle:
        idle.pop()[1].close()


def _body(answer: http.client.HTTPResponse, into: memoryview | None) -> bytes | memoryview:
    """Returns the body: `into`, filled, if it has its length."""
    if into is None or answer.status >= 300 or answer.length != len(into):
        return answer.read()
    done = 0
    while done < len(into):
        count = answer.readinto(into[done:])
        if count == 0:
            raise ConnectionError(f"cut off at {done} bytes of {len(into)}")
        done += count
    return into
