"""Objects of a bucket: their metadata, listed, written and deleted; `_bodies` reads them.

The crc32c goes ahead of the bytes that are written, and the service refuses what does not match;
an object appears complete or not at all.
"""

import base64
import json
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, BinaryIO

from monolith_jax.storage._client import IncompleteError, Response, request, submit

RANGE = 32 << 20  # bytes a request; of a multiple of 256 KiB, as resumable uploads need
RESTARTS = 5  # of a whole upload whose session was lost


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
