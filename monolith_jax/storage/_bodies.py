"""Bytes of objects, read whole or in ranges, and checked.

The object's metadata first, then its bytes in ranges of one generation, several on the wire at a
time, so a cut connection costs one range, an object that is replaced meanwhile never comes out
mixed, and the crc32c of the whole is compared with the service's.
"""

import io
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

from monolith_jax.storage import _objects
from monolith_jax.storage._client import IncompleteError, Response, submit
from monolith_jax.storage._download import DOWNLOAD, download

AT_ONCE = 4  # ranges on the wire


class ReplacedError(Exception):
    """The object was replaced or deleted while it was read."""


def read_range(
    of: _objects.Stat,
    start: int,
    length: int,
    into: memoryview | None = None,
    stop: threading.Event | None = None,
) -> bytes | memoryview:
    """Returns bytes start..start + length of an object, or as many as it has.

    They are read into `into`, which is returned, if it is given and has their number. Once `stop`
    is set nothing is tried again.
    """
    length = max(0, min(length, of.size - start))
    if of.encoded:  # aiohttp decompresses it
        return submit(
            "GET",
            DOWNLOAD,
            *(of.bucket, of.name),
            check=lambda answer: answer.body,
            alt="media",
            generation=of.generation,
        ).result()
    if length == 0:
        return b""

    def check(answer: Response) -> bytes | memoryview:
        body = answer.body
        if answer.status == 200 and len(body) == of.size != length:
            body = body[start : start + length]  # a proxy on the way that knows no ranges
        if len(body) != length:
            raise IncompleteError(f"{len(body)} bytes of {length}")
        return body

    return download(
        of.bucket,
        of.name,
        check=check,
        headers={"Range": f"bytes={start}-{start + length - 1}"},
        into=into,
        stop=stop,
        generation=of.generation,
    )


def read_range_at_once(
    bucket: str, name: str, start: int, length: int, into: memoryview | None = None
) -> bytes | memoryview | None:
    """Returns bytes start..start + length of an object, or as many as it has, in one request.

    The answer says how large the object is, so its metadata is not needed: one request instead of
    two. None if it does not say, as of an object that is stored compressed or a start beyond the
    end; then ask for the metadata. `into` as for `read_range`.
    """
    if length <= 0:
        return None

    def check(answer: Response) -> bytes | memoryview | None:
        size = answer.headers.get("content-range", "").rpartition("/")[2]
        encoded = answer.headers.get("x-goog-stored-content-encoding", "identity")
        if answer.status != 206 or not size.isdigit() or encoded not in ("", "identity"):
            return None
        wanted = max(0, min(length, int(size) - start))
        if len(answer.body) != wanted:
            raise IncompleteError(f"{len(answer.body)} bytes of {wanted}")
        return answer.body

    headers = {"Range": f"bytes={start}-{start + length - 1}"}
    try:
        return download(bucket, name, check=check, headers=headers, into=into)
    except Exception as error:
        if str(getattr(error, "code", "")) == "416":  # nothing at or behind `start`
            return None
        raise


def read_whole(of: _objects.Stat) -> bytes:
    """Returns all bytes of an object. Errors as for `read_chunks`."""
    if of.encoded:
        return b"".join(read_chunks(of))
    memory = io.BytesIO(bytes(of.size))
    with memory.getbuffer() as view:
        deque(read_chunks(of, view), maxlen=0)
    return memory.getvalue()  # no copy, as no view is left


def read_chunks(of: _objects.Stat, into: memoryview | None = None) -> Iterator[bytes | memoryview]:
    """Yields all bytes of an object, in order, and compares their checksum at the end.

    Args:
      of: the object.
      into: memory of its size in which the bytes come to lie.

    Raises:
      ReplacedError: the object was replaced or deleted meanwhile.
      IncompleteError: the checksum is not the object's.
    """
    from crc32c import crc32c

    starts = iter(range(0, of.size, _objects.RANGE) if not of.encoded else [0])
    running: deque[tuple[int, Future[bytes | memoryview]]] = deque()
    checksum, stop = 0, threading.Event()
    try:
        while True:
            while len(running) < AT_ONCE and (start := next(starts, None)) is not None:
                running.append((start, _begin_range(of, start, into, stop)))
            if not running:
                break
            start, future = running.popleft()
            chunk = future.result()
            if into is not None:
                chunk = into[start : start + _objects.RANGE]
            checksum = crc32c(chunk, checksum)
            yield chunk
    except FileNotFoundError as error:
        raise ReplacedError(f"gs://{of.bucket}/{of.name}: replaced while it was read") from error
    finally:
        stop.set()
    if of.crc32c is not None and not of.encoded and checksum != of.crc32c:
        raise IncompleteError(f"crc32c is {checksum:08x}, not {of.crc32c:08x}")


def _begin_range(
    of: _objects.Stat, start: int, into: memoryview | None, stop: threading.Event
) -> Future[bytes | memoryview]:
    """Reads a range on a thread of its own; the process does not wait for it when it ends.

    With `into` it comes to lie at `start` in it, and the result is nothing.
    """
    future: Future[bytes | memoryview] = Future()

    def read() -> bytes | memoryview:
        if into is None:
            return read_range(of, start, _objects.RANGE, stop=stop)
        with into[start : start + _objects.RANGE] as view:
            body = read_range(of, start, _objects.RANGE, view, stop)
            if body is not view:
                view[:] = body
        return b""

    def run() -> None:
        try:
            future.set_result(read())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="download", daemon=True).start()
    return future
