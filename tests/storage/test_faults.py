"""The service fails, cuts, stalls and lies: nothing is lost, doubled, half there or told on."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec.config
import numpy as np
import pytest

from monolith_jax import storage
from monolith_jax.storage import _client, _gcs, _objects
from monolith_jax.storage._errors import redact

# "status" 500 to 504, 408 and 429, and every way in which a line can break.
KINDS = [
    ("status", 408),
    ("status", 429),
    ("status", 500),
    ("status", 502),
    ("status", 503),
    ("status", 504),
    ("refuse", 0),
    ("lost", 0),
    ("cut", 5),
    ("cut", 0),
    ("stall", 0.9),
]


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(_objects, "RANGE", 256 << 10)
    monkeypatch.setattr(_gcs, "_SMALL", 256 << 10)
    return 256 << 10


def random_bytes(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


@pytest.mark.parametrize(("kind", "value"), KINDS)
def test_one_fault_in_every_operation(faults: Any, tmp_path: Path, kind: str, value: float) -> None:
    path, data = faults.bucket / "run/a", random_bytes(10_000)
    faults.add(kind, value)
    storage.write_bytes(path, data)
    faults.add(kind, value)
    assert storage.read_bytes(path) == data
    faults.add(kind, value, where="alt=media")
    assert storage.read_range(path, 100, 50) == data[100:150]
    faults.add(kind, value, where="alt=media")
    storage.download(path, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == data
    faults.add(kind, value)
    assert storage.list_files(faults.bucket / "run") == [path]
    faults.add(kind, value)
    assert storage.exists(path)
    faults.add(kind, value, method="DELETE")  # the answer to the first try may be the one lost
    storage.delete(path)
    assert not storage.exists(path)
    assert len(faults.done) == 7


@pytest.mark.parametrize("wrong", ["short", "flip"])
def test_short_and_damaged_bodies_are_read_again(faults: Any, tmp_path: Path, wrong: str) -> None:
    """A well-formed answer with too few bytes, or with others than the checksum says."""
    path, data = faults.bucket / "a", random_bytes(10_000)
    storage.write_bytes(path, data)
    faults.add(wrong, 3, where="alt=media")
    assert storage.read_bytes(path) == data
    faults.add(wrong, 3, where="alt=media")
    storage.download(path, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == data
    assert len(faults.done) == 2


def test_damage_that_stays_is_an_error_and_no_file(faults: Any, tmp_path: Path) -> None:
    storage.write_bytes(faults.bucket / "a", b"abc")
    for _ in range(20):
        faults.add("flip", where="alt=media")
    with pytest.raises(storage.StorageError, match=r"/a: .*crc32c is \w{8}, not"):
        storage.download(faults.bucket / "a", tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["refuse", "lost", "cut", "status"])
@pytest.mark.parametrize("which", range(4))
def test_a_fault_in_any_part_of_a_large_upload(
    faults: Any,
    tmp_path: Path,
    small_ranges: int,
    kind: str,
    which: int,
) -> None:
    """The request that opens the session, its first, middle or last range."""
    data = random_bytes(3 * small_ranges + 100, which)
    (tmp_path / "a").write_bytes(data)
    passing = [("POST", "uploadType=resumable")] + [("PUT", "upload_id")] * 3
    taken = 0
    original = faults.take

    def at_which(method: str, path: str) -> Any:
        nonlocal taken
        if method in ("POST", "PUT"):
            taken += 1
            return original(method, path) if taken == which + 1 else None
        return original(method, path)

    faults.take = at_which
    faults.add(kind, 503 if kind == "status" else 2, *passing[which])
    storage.upload(tmp_path / "a", faults.bucket / "a")
    assert len(faults.done) == 1
    assert storage.read_bytes(faults.bucket / "a") == data


def test_two_hundred_faults_lose_nothing(faults: Any, small_ranges: int, tmp_path: Path) -> None:
    """Objects of all sizes are written and read through 200 random faults, some in a row."""
    draw = random.Random(0)
    kinds = [kind for kind in KINDS if kind[0] != "stall"] + [("short", 2)]
    written: dict[str, bytes] = {}
    injected = 0
    while injected < 200:
        for _ in range(draw.randint(1, 3)):
            kind, value = draw.choice(kinds)
            if kind == "short":
                faults.add(kind, value, where="alt=media")
            else:
                faults.add(kind, value)
            injected += 1
        path = faults.bucket / f"run/{draw.randrange(30):02d}"
        written[path] = random_bytes(draw.choice([0, 100, 50_000, 2 * small_ranges + 7]), injected)
        storage.write_bytes(path, written[path])
        assert storage.read_bytes(path) == written[path]
    assert storage.list_files(faults.bucket / "run") == sorted(written)
    storage.download_folder(faults.bucket / "run", tmp_path)
    for path, data in written.items():
        assert (tmp_path / path.rpartition("/")[2]).read_bytes() == data
    assert len(faults.done) >= 200


def test_it_gives_up_after_the_policys_tries(faults: Any) -> None:
    for _ in range(100):
        faults.add("status", 503)
    with pytest.raises(
        storage.StorageError, match=rf"gs://{faults.bucket.name}/a: gave up after 6"
    ):
        storage.read_bytes(faults.bucket / "a")
    assert len(faults.done) == 6


@pytest.mark.parametrize("code", [400, 403])
def test_what_no_retry_can_help_is_an_error_at_once(faults: Any, code: int) -> None:
    faults.add("status", code)
    with pytest.raises(storage.StorageError) as error:
        storage.read_bytes(faults.bucket / "a")
    assert len(faults.done) == len(faults.requests) == 1
    assert faults.bucket / "a" in str(error.value)
    assert "gave up" not in str(error.value)
    assert ("GOOGLE_APPLICATION_CREDENTIALS" in str(error.value)) == (code == 403)


def test_a_failed_download_leaves_what_was_there(
    faults: Any, tmp_path: Path, small_ranges: int
) -> None:
    storage.write_bytes(faults.bucket / "a", random_bytes(6 * small_ranges))
    (tmp_path / "a").write_bytes(b"before")
    for _ in range(60):
        faults.add("cut", 1000, where="alt=media")
    with pytest.raises(storage.StorageError, match="gave up"):
        storage.download(faults.bucket / "a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a"]


def test_a_killed_download_is_absent(faults: Any, tmp_path: Path) -> None:
    """SIGKILL while the second range is on the wire: no file under the name asked for."""
    data = random_bytes(1_000_000)
    storage.write_bytes(faults.bucket / "a", data)
    script = (
        "import sys\n"
        "from monolith_jax import storage\n"
        "from monolith_jax.storage import _bodies, _objects\n"
        "_objects.RANGE = 256 << 10; _bodies.AT_ONCE = 1\n"
        "storage.download(sys.argv[1], sys.argv[2])\n"
    )

    original, seen = faults.take, []

    def stall_second(method: str, path: str) -> Any:
        if "alt=media" in path:
            seen.append(path)
        return original(method, path) if len(seen) >= 2 else None

    faults.take = stall_second
    faults.add("stall", 20, where="alt=media")
    target = tmp_path / "to" / "a"
    process = subprocess.Popen([sys.executable, "-c", script, faults.bucket / "a", str(target)])
    try:
        deadline = time.monotonic() + 60
        while len(seen) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        left = os.listdir(tmp_path / "to")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(seen) == 2
    assert len(left) == 1  # the bytes of the first range were on their way to the disk
    assert not target.exists()
    assert storage.list_files(tmp_path) == []
    storage.download(faults.bucket / "a", target)  # and the next run is not disturbed
    assert target.read_bytes() == data


def test_retries_are_logged_once_each(faults: Any, caplog: pytest.LogCaptureFixture) -> None:
    storage.write_bytes(faults.bucket / "a", b"1")
    faults.add("status", 503)
    faults.add("cut", 0)
    with caplog.at_level(logging.WARNING):
        storage.size(faults.bucket / "a")
    messages = [record.getMessage() for record in caplog.records]
    assert [f"try {n} of 6 failed" in m for n, m in enumerate(messages, 1)] == [True, True]
    assert all(f"gs://{faults.bucket.name}/a" in message for message in messages)


def service_account(folder: Path, token_uri: str) -> tuple[Path, str]:
    """Writes the key file of a service account that Google has never heard of."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "project",
                "private_key_id": "key-id",
                "private_key": key.decode(),
                "client_email": "robot@project.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": token_uri,
            }
        )
    )
    return path, key.decode()


def test_credentials_come_from_the_environment_and_never_reach_a_log(
    faults: Any,
    tmp_path: Path,
    small_ranges: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every logger at DEBUG, failures of all kinds: the token goes to the service alone."""
    account, key = service_account(tmp_path, f"{faults.endpoint}/token")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    monkeypatch.setitem(fsspec.config.conf, "gs", {"endpoint_url": faults.endpoint})
    _client._filesystem.cache_clear()
    said = []
    with caplog.at_level(logging.DEBUG):
        data = random_bytes(3 * small_ranges)
        for kind, value in KINDS[:5]:
            faults.add(kind, value, method="PUT")
        storage.write_bytes(faults.bucket / "a", data)
        assert storage.read_bytes(faults.bucket / "a") == data
        for code in (401, 403, 400, *[503] * 6):
            faults.add("status", code)
        for _ in range(4):
            with pytest.raises(storage.StorageError) as error:
                storage.read_bytes(faults.bucket / "a")
            said.append(str(error.value))
    _client._filesystem.cache_clear()
    assert faults.authorization.count("Bearer ya29.TOKEN-SECRET") > 10
    session = next(path for _, path in faults.requests if "upload_id=" in path)
    said += [record.getMessage() for record in caplog.records] + [caplog.text]
    assert len(said) > 10
    secrets = ["TOKEN-SECRET", key.splitlines()[3], session.rpartition("upload_id=")[2]]
    for secret in secrets:
        assert not [line for line in said if secret in line]


def test_no_credentials_are_sent_to_an_emulator(
    faults: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, _ = service_account(tmp_path, f"{faults.endpoint}/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    _client._filesystem.cache_clear()
    storage.write_bytes(faults.bucket / "a", b"1")
    assert set(faults.authorization) == {""}


@pytest.mark.parametrize(
    "text",
    [
        "PUT http://x/o?upload_id=SECRET&name=a",
        "{'Authorization': 'Bearer SECRET'}",
        '{"access_token": "SECRET", "x": 1}',
        "{'refresh_token': 'SECRET'}",
        "got ya29.SECRET-x_y.z back",
        "-----BEGIN RSA PRIVATE KEY-----\nSECRET\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nSECRET cut",
    ],
)
def test_redact(text: str) -> None:
    assert "SECRET" not in redact(text)
    assert "(hidden)" in redact(text)
