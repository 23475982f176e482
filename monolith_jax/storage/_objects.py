"""Objects of a bucket, read and written whole, in ranges, and checked.

Reading: the object's metadata first, then its bytes in ranges of one generation, several on the
wire at a time, so a cut connection costs one range, an object that is replaced meanwhile never
comes out mixed, and the crc32c of the whole is compared with the service's. Writing: the crc32c
goes ahead of the bytes, and the service refuses what does not match; an object appears complete or
not at all.
"""

import base64
import io
import json
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, BinaryIO

from monolith_jax.storage._client import IncompleteError, Response, request, submit
from monolith_jax.storage._download import DOWNLOAD, download

RANGE = 32 << 20  # bytes a request; of a multiple of 256 KiB, as resumable uploads need
AT_ONCE = 4  # ranges on the wire
RESTARTS = 5  # of a whole upload whose session was lost


class ReplacedError(Exception):
    """The object was replaced or deleted while it was read."""


class LostUploadError(Exception):
    """An upload session is gone, or what arrived through it is not what was sent."""


@dataclass(frozen=True)
class Stat:
    """An object's metadata: where it is, its size, which version, and its checksum.

    Attributes:
      bucket: its bucket.
      name: its name in the bucket.
      size: bytes as stored.
      generation: changes whenever the object is replaced.
      crc32c: of the bytes as stored; None if the service has none.
      encoded: stored compressed, to be decompressed on the way: no ranges and no checksum then.
    """

    bucket: str
    name: str
    size: int
    generation: str
    crc32c: int | None
    encoded: bool


def stat(bucket: str, name: str, tries: int | None = None) -> Stat:
    """Returns an object's metadata.

    Raises:
      FileNotFoundError: there is no such object.
    """
    found = request("GET", "storage/v1/b/{}/o/{}", bucket, name, check=Response.json, tries=tries)
    return of_json(bucket, found)


def read_range(
    of: Stat,
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


def read_whole(of: Stat) -> bytes:
    """Returns all bytes of an object. Errors as for `read_chunks`."""
    if of.encoded:
        return b"".join(read_chunks(of))
    memory = io.BytesIO(bytes(of.size))
    with memory.getbuffer() as view:
        deque(read_chunks(of, view), maxlen=0)
    return memory.getvalue()  # no copy, as no view is left


def read_chunks(of: Stat, into: memoryview | None = None) -> Iterator[bytes | memoryview]:
    """Yields all bytes of an object, in order, and compares their checksum at the end.

    Args:
      of: the object.
      into: memory of its size in which the bytes come to lie.

    Raises:
      ReplacedError: the object was replaced or deleted meanwhile.
      IncompleteError: the checksum is not the object's.
    """
    from crc32c import crc32c

    starts = iter(range(0, of.size, RANGE) if not of.encoded else [0])
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
                chunk = into[start : start + RANGE]
            checksum = crc32c(chunk, checksum)
            yield chunk
    except FileNotFoundError as error:
        raise ReplacedError(f"gs://{of.bucket}/{of.name}: replaced while it was read") from error
    finally:
        stop.set()
    if of.crc32c is not None and not of.encoded and checksum != of.crc32c:
        raise IncompleteError(f"crc32c is {checksum:08x}, not {of.crc32c:08x}")


def _begin_range(
    of: Stat, start: int, into: memoryview | None, stop: threading.Event
) -> Future[bytes | memoryview]:
    """Reads a range on a thread of its own; the process does not wait for it when it ends.

    With `into` it comes to lie at `start` in it, and the result is nothing.
    """
    future: Future[bytes | memoryview] = Future()

    def read() -> bytes | memoryview:
        if into is None:
            return read_range(of, start, RANGE, stop=stop)
        with into[start : start + RANGE] as view:
            body = read_range(of, start, RANGE, view, stop)
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


def write(bucket: str, name: str, data: bytes, replaces: str | None = None) -> str:
    """Writes a small object, in one request; returns its generation.

    Args:
      bucket: its bucket.
      name: its name.
      data: all of it.
      replaces: the generation that it must still be of, "0" if there must be none; the service
        answers 412 if it is not. None: whatever is there.
    """
    from crc32c import crc32c

    checksum = crc32c(data)
    boundary = uuid.uuid4().hex  # drawn anew: no data can hold it
    head = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        f"{json.dumps(_metadata(name, checksum))}\r\n"
        f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    return request(
        "POST",
        "upload/storage/v1/b/{}/o",
        bucket,
        check=lambda answer: _check_written(answer, len(data), checksum),
        headers={"Content-Type": f'multipart/related; boundary="{boundary}"'},
        data=b"".join([head.encode(), data, f"\r\n--{boundary}--".encode()]),
        uploadType="multipart",
        ifGenerationMatch=replaces,
        what=f"POST gs://{bucket}/{name}",
    )


def write_large(bucket: str, name: str, source: BinaryIO) -> None:
    """Writes an object of any size from a seekable file, in a resumable upload.

    Raises:
      LostUploadError: the upload was lost `RESTARTS` times.
    """
    from crc32c import crc32c

    size, checksum = 0, 0
    source.seek(0)
    while chunk := source.read(RANGE):
        size, checksum = size + len(chunk), crc32c(chunk, checksum)
    for restart in range(1, RESTARTS + 1):
        try:
            return _resumable(bucket, name, source, size, checksum)
        except LostUploadError:
            if restart == RESTARTS:
                raise
    return None


def delete(bucket: str, name: str) -> Future[None]:
    """Starts to delete an object."""
    return submit("DELETE", "storage/v1/b/{}/o/{}", bucket, name, check=lambda answer: None)


def list_page(
    bucket: str, prefix: str, delimiter: str | None, token: str | None, most: int = 1000
) -> tuple[list[tuple[str, int]], list[str], str | None]:
    """Returns one page of a listing: (name, size) of objects, names of folders, the next token."""
    page = request(
        "GET",
        "storage/v1/b/{}/o",
        bucket,
        check=Response.json,
        prefix=prefix or None,
        delimiter=delimiter,
        pageToken=token,
        maxResults=most,
        fields="items(name,size),prefixes,nextPageToken",
    )
    objects = [(item["name"], int(item["size"])) for item in page.get("items", [])]
    return objects, page.get("prefixes", []), page.get("nextPageToken")


def _resumable(bucket: str, name: str, source: BinaryIO, size: int, checksum: int) -> None:
    """Makes one upload session and sends all of `source` through it."""
    session = request(
        "POST",
        "upload/storage/v1/b/{}/o",
        bucket,
        check=lambda answer: answer.headers["location"],
        headers={"Content-Type": "application/json; charset=UTF-8"},
        data=json.dumps(_metadata(name, checksum)).encode(),
        uploadType="resumable",
        what=f"POST gs://{bucket}/{name}",
        name=name,
    )
    start: int | None = 0
    while start is not None:
        source.seek(start)
        chunk = source.read(RANGE)
        try:
            # Sent again after a cut line, a range that has arrived already is ignored.
            start = request(
                "PUT",
                session,
                check=lambda answer: _received(answer, size, checksum),
                headers={"Content-Range": f"bytes {start}-{start + len(chunk) - 1}/{size}"},
                data=chunk,
                what=f"PUT gs://{bucket}/{name} from byte {start}",
            )
        except FileNotFoundError as error:
            raise LostUploadError(f"the upload was lost at byte {start} of {size}") from error


def _received(answer: Response, size: int, checksum: int) -> int | None:
    """Returns how many bytes have arrived, or None once the object is there."""
    if answer.status == 308 or (answer.status == 200 and not bytes(answer.body).strip()):
        return int(answer.headers.get("range", "bytes=0--1").rpartition("0-")[2]) + 1
    found = of_json("", answer.json())
    if found.size != size or found.crc32c not in (None, checksum):
        raise LostUploadError(f"{found.size} bytes of {size} arrived, or damaged ones")
    return None


def _metadata(name: str, checksum: int) -> dict[str, str]:
    return {
        "name": name,
        "contentType": "application/octet-stream",
        "crc32c": base64.b64encode(checksum.to_bytes(4, "big")).decode(),
    }


def _check_written(answer: Response, size: int, checksum: int) -> str:
    found = of_json("", answer.json())
    if found.size != size or found.crc32c not in (None, checksum):
        raise IncompleteError(f"{found.size} bytes of {size} arrived, or damaged ones")
    return found.generation


def of_json(bucket: str, found: dict[str, Any]) -> Stat:
    """Returns what the service says of an object."""
    crc = found.get("crc32c")
    return Stat(
        bucket=bucket,
        name=found["name"],
        size=int(found["size"]),
        generation=str(found["generation"]),
        crc32c=int.from_bytes(base64.b64decode(crc), "big") if crc else None,
        encoded=found.get("contentEncoding", "") not in ("", "identity"),
    )
