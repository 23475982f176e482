"""Compare and swap of objects: one of two writers wins, and lost answers do not matter."""

from typing import Any

import pytest

from monolith_jax import storage
from monolith_jax.storage import conditional

pytestmark = pytest.mark.usefixtures("quick_retries")


def test_what_is_written_comes_back_with_its_age(gcs: Any) -> None:
    path = gcs / "run/.lock"
    assert conditional.read(path) is None
    generation = conditional.write(path, b"one", conditional.ABSENT)
    found = conditional.read(path)
    assert found is not None
    assert (found.data, found.generation) == (b"one", generation)
    assert -2 <= found.age <= 600  # the clock has whole seconds
    assert storage.read_bytes(path) == b"one"


def test_only_the_expected_version_is_replaced(gcs: Any) -> None:
    path = gcs / "lock"
    first = conditional.write(path, b"a", conditional.ABSENT)
    with pytest.raises(conditional.ChangedError, match="lock: replaced by somebody else"):
        conditional.write(path, b"b", conditional.ABSENT)
    second = conditional.write(path, b"c", first)
    for stale in (first, conditional.ABSENT):
        with pytest.raises(conditional.ChangedError):
            conditional.write(path, b"d", stale)
    assert storage.read_bytes(path) == b"c"
    storage.delete(path)
    with pytest.raises(conditional.ChangedError):
        conditional.write(path, b"e", second)


def test_a_lost_answer_is_not_taken_for_another_writer(faults: Any) -> None:
    path = faults.bucket / "lock"
    faults.add("lost", method="POST")
    first = conditional.write(path, b"a", conditional.ABSENT)
    faults.add("lost", method="POST")
    second = conditional.write(path, b"b", first)
    for kind, value in (("status", 503), ("cut", 5), ("refuse", 0)):
        faults.add(kind, value, method="GET")
    found = conditional.read(path)
    assert found is not None
    assert (found.data, found.generation) == (b"b", second)
    assert not faults.queue


def test_a_bucket_that_is_not_there_is_named(gcs: Any) -> None:
    with pytest.raises(storage.NotFoundError, match="there is no bucket 'none'"):
        conditional.read("gs://none/lock")
    with pytest.raises(storage.NotFoundError, match="there is no bucket 'none'"):
        conditional.write("gs://none/lock", b"a", conditional.ABSENT)
