"""Requests to Google Cloud Storage: gcsfs's credentials and connections, our retries.

gcsfs itself tries a request six times with waits of 1 to 16 s that nobody can set, waits forever
on a connection that has gone silent, does not notice a body shorter than what was asked for, and
logs the addresses of upload sessions when it logs at DEBUG. So its one coroutine that sends one
request is called without the loop around it, and the loop is here.
"""

import asyncio
import functools
import inspect
import io
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from monolith_jax.storage._errors import one_line
from monolith_jax.storage._retry import RetryPolicy, retry_policy

T = TypeVar("T")
_log = logging.getLogger(__name__)

_EMULATOR = "STORAGE_EMULATOR_HOST"


class Response(NamedTuple):
    """The answer to one request.

    Attributes:
      status: 2xx, or 308 from an upload that is not finished.
      headers: their names in lower case.
      body: all of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | memoryview

    def json(self) -> dict[str, Any]:
        """Returns the body as JSON; damaged JSON is an `IncompleteError`."""
        try:
            return json.loads(bytes(self.body) or b"{}")
        except ValueError as error:
            raise IncompleteError(f"{len(self.body)} bytes that are not JSON") from error


class IncompleteError(Exception):
    """An answer that arrived cut or damaged: as good as none, so the request is sent again."""


def filesystem(policy: RetryPolicy) -> Any:
    """Returns the gcsfs filesystem that requests go through, shared by all threads.

    gcsfs finds the credentials: GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth
    application-default login`, the machine's service account, or what fsspec's configuration
    says. With STORAGE_EMULATOR_HOST set none are looked for, and none are sent to the emulator.
    """
    # gcsfs's own cache makes one for every thread, each of which would ask for a token.
    return _filesystem(os.getpid(), policy.stall_s, bool(os.environ.get(_EMULATOR)))


@functools.lru_cache(maxsize=8)
def _filesystem(pid: int, stall_s: float, emulator: bool) -> Any:
    """Makes the filesystem of one process: a connection does not survive a fork."""
    # Before the import. gcsfs 2026.3 and later ask over gRPC what kind of bucket each is, which
    # stalls on an emulator and helps only with buckets in one zone; a user may still turn it on.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import aiohttp
    import gcsfs

    silence = aiohttp.ClientTimeout(total=None, sock_connect=stall_s, sock_read=stall_s)
    token = {"token": "anon"} if emulator else {}
    # aiohttp's own 64 KiB pauses the transport again and again while a range arrives.
    buffers = {"read_bufsize": 4 << 20}
    return gcsfs.GCSFileSystem(
        requests_timeout=silence,
        use_listings_cache=False,
        skip_instance_cache=True,
        session_kwargs=buffers,
        **token,
    )


def address(fs: Any, where: str) -> str:
    """Returns the whole address of a path on the service."""
    return f"{fs.base.removesuffix('/storage/v1/')}/{where}"


def submit(
    method: str,
    where: str,
    *names: str,
    check: Callable[[Response], T],
    headers: Mapping[str, str] | None = None,
    data: bytes | memoryview | None = None,
    tries: int | None = None,
    what: str | None = None,
    **query: str | int | None,
) -> Future[T]:
    """Starts a request, with retries, and returns the future of its checked answer.

    Args:
      method: GET, POST, PUT or DELETE.
      where: the path on the service, its {} filled with the quoted names, or a whole address.
      *names: bucket and object.
      check: turns the answer into the result; raising IncompleteError sends the request again.
      headers: beyond the credentials.
      data: the body.
      tries: the policy's number if None.
      what: how the log names the request; its method and names if None.
      **query: parameters; those that are None are left out.
    """
    policy = retry_policy()
    fs = filesystem(policy)
    send = inspect.unwrap(type(fs)._request)  # without gcsfs's own retries
    url = where if where.startswith("http") else address(fs, where)

    async def once() -> T:
        # As a file, else aiohttp warns of more than 1 MiB; a new one for each try, as it closes it.
        file = io.BytesIO(data) if data else data
        status, answered, _, body = await send(
            fs, method, url, *names, headers=dict(headers or {}), data=file, **query
        )
        return check(Response(status, {k.lower(): v for k, v in answered.items()}, body))

    what = what or f"{method} gs://{'/'.join(names)}"
    looped = _with_retries(once, what, policy, policy.tries if tries is None else tries)
    return asyncio.run_coroutine_threadsafe(looped, fs.loop)


def request(method: str, where: str, *names: str, check: Callable[[Response], T], **kw: Any) -> T:
    """Sends a request, with retries, and returns its checked answer. Arguments as for `submit`."""
    return submit(method, where, *names, check=check, **kw).result()


def retried(once: Callable[[], T], what: str, policy: RetryPolicy) -> T:
    """Runs a request on this thread, again and again as the policy has it."""
    for failed in range(1, policy.tries):
        try:
            return once()
        except Exception as error:
            time.sleep(_wait_s(error, what, policy, failed, policy.tries))
    return once()


async def _with_retries(
    once: Callable[[], Awaitable[T]], what: str, policy: RetryPolicy, tries: int
) -> T:
    for failed in range(1, tries):
        try:
            return await once()
        except Exception as error:
            await asyncio.sleep(_wait_s(error, what, policy, failed, tries))
    return await once()


def _wait_s(error: Exception, what: str, policy: RetryPolicy, failed: int, tries: int) -> float:
    """Returns how long to wait after a failure; raises it if no wait would help."""
    if not is_transient(error):
        raise error
    wait = policy.wait_s(failed)
    _log.warning(
        "%s: try %d of %d failed (%s); again in %.2f s",
        *(what, failed, tries, one_line(error), wait),
    )
    return wait


def is_transient(error: BaseException) -> bool:
    """Returns whether the same request may succeed later: 408, 429, 5xx, a cut or silent line."""
    import gcsfs.retry
    from google.auth.exceptions import RefreshError

    if isinstance(error, RefreshError):
        return bool(error.retryable)  # a revoked key stays revoked
    if isinstance(error, IncompleteError | TimeoutError | ConnectionError):
        return True
    return bool(gcsfs.retry.is_retriable(error))
