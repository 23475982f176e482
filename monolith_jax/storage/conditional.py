"""Objects that are replaced only if they are still what was read: compare and swap.

For what several machines agree on through a bucket. Local files have no such thing; there the
operating system's locks serve.
"""

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from monolith_jax.storage import _bodies, _objects
from monolith_jax.storage._client import IncompleteError, Response, request
from monolith_jax.storage._errors import StorageError
from monolith_jax.storage._gcs import _guard, _object

ABSENT = "0"
"""The generation of an object that is not there."""

_OBJECT = "storage/v1/b/{}/o/{}"
_READS = 10  # of an object that is replaced while it is read


@dataclass(frozen=True)
class Version:
    """One version of an object.

    Attributes:
      data: its bytes.
      generation: which version it is.
      age: seconds since the service took it, by the service's own clock; whole seconds.
    """

    data: bytes
    generation: str
    age: float


class ChangedError(StorageError):
    """The object is not, or no longer, of the generation that was given."""


def read(path: str) -> Version | None:
    """Returns an object with its generation and age, None if there is none.

    Args:
      path: gs://bucket/name.

    Raises:
      NotFoundError: there is no such bucket.
      StorageError: it cannot be read, or is replaced too fast to be read.
    """
    bucket, name = _object(path)

    def once() -> Version | None:
        try:
            for _ in range(_READS):
                answer = request("GET", _OBJECT, bucket, name, check=_dated)
                found = _objects.of_json(bucket, answer.json())
                try:
                    data = bytes(_bodies.read_range(found, 0, found.size))
                except FileNotFoundError:  # replaced meanwhile
                    continue
                return Version(data, found.generation, _age(answer))
        except FileNotFoundError:
            _objects.list_page(bucket, "", None, None, 1)  # is the bucket there?
            return None
        raise StorageError(f"{path}: replaced again and again while it was read")

    return _guard(path, once)


def write(path: str, data: bytes, generation: str) -> str:
    """Replaces an object if it is still of a generation; returns the new generation.

    Args:
      path: gs://bucket/name.
      data: what it is to hold. No two writes may hold the same: where an answer was lost, the
        bytes tell whether it was this write that came through.
      generation: of the version to replace; `ABSENT` if there must be none.

    Raises:
      ChangedError: it is of another generation, or gone.
      StorageError: it cannot be written.
    """
    bucket, name = _object(path)

    def put() -> str:
        try:
            return _objects.write(bucket, name, data, replaces=generation)
        except Exception as error:
            if isinstance(error, FileExistsError) or str(getattr(error, "code", "")) == "412":
                raise ChangedError(f"{path}: replaced by somebody else") from None
            raise

    try:
        return _guard(path, put)
    except ChangedError:
        found = read(path)
        if found is not None and found.data == data:
            return found.generation
        raise


def _dated(answer: Response) -> Response:
    try:
        _age(answer)
    except (KeyError, ValueError, TypeError) as error:
        raise IncompleteError(f"no metadata of an object: {error!r}") from error
    return answer


def _age(answer: Response) -> float:
    """Returns how old an object was when the service answered."""
    now = parsedate_to_datetime(answer.headers["date"])
    taken = datetime.fromisoformat(answer.json()["updated"].replace("Z", "+00:00"))
    return (now - taken).total_seconds()
