"""Bodies of objects: into memory that is there, on connections that stay open, over TLS."""

import datetime
import http.server
import ipaddress
import ssl
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import fsspec.config
import numpy as np
import pytest

from monolith_jax import storage
from monolith_jax.storage import _bodies, _client, _download, _objects


def random_bytes(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


@pytest.mark.parametrize("where", ["local", "gcs"])
def test_bytes_come_to_lie_where_they_are_wanted(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = str(tmp_path) if where == "local" else request.getfixturevalue("gcs") / "run"
    path, data = storage.join(folder, "a"), random_bytes(100_000)
    storage.write_bytes(path, data)
    memory = bytearray(50_000)
    storage.read_into(path, 40_000, memoryview(memory)[10:40_010])
    assert memory == bytes(10) + data[40_000:80_000] + bytes(9_990)
    storage.read_into(path, 7, memoryview(memory)[:0])
    for start in (60_000, 100_000, 200_000):
        with pytest.raises(storage.StorageError, match=r"/a: bytes .* it ends at 100000"):
            storage.read_into(path, start, memoryview(memory))
    with pytest.raises(storage.StorageError, match="no byte -1"):
        storage.read_into(path, -1, memoryview(memory))
    with pytest.raises(storage.NotFoundError, match="did you mean a"):
        storage.read_into(path + "a", 0, memoryview(memory))


def test_a_body_that_is_cut_is_read_again_into_the_same_place(faults: Any) -> None:
    path, data = faults.bucket / "a", random_bytes(100_000)
    storage.write_bytes(path, data)
    for kind, value in (("cut", 500), ("stall", 0.9), ("short", 3), ("lost", 0), ("status", 503)):
        memory = bytearray(60_000)
        faults.add(kind, value, where="alt=media")
        storage.read_into(path, 1_000, memoryview(memory))
        assert memory == data[1_000:61_000]
    assert len(faults.done) == 5


def test_a_connection_serves_one_request_after_another(gcs: Any) -> None:
    storage.write_bytes(gcs / "a", b"abcdef")
    _download._pool.cache_clear()
    made: list[Any] = []
    take = _download._Pool._take

    def counted(pool: Any, stall_s: float) -> Any:
        made.append(take(pool, stall_s))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_download._Pool, "_take", counted)
        for start in range(3):
            assert storage.read_range(gcs / "a", start, 2) == b"abcdef"[start : start + 2]
        patch.setattr(_download, "_IDLE_S", -1.0)  # all have been idle for too long
        assert storage.read_range(gcs / "a", 0, 1) == b"a"
    assert made[0] is made[1] is made[2]
    assert made[3] is not made[2]


def test_nothing_is_tried_again_for_a_reader_that_is_gone(gcs: Any) -> None:
    storage.write_bytes(gcs / "a", b"abc")
    of, stop = _objects.stat(gcs.name, "a"), threading.Event()
    assert _bodies.read_range(of, 0, 2, stop=stop) == b"ab"
    stop.set()
    with pytest.raises(CancelledError, match="nobody waits for a"):
        _bodies.read_range(of, 0, 2, stop=stop)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Writes a certificate for 127.0.0.1 that nobody has signed but itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


class _Service(http.server.BaseHTTPRequestHandler):
    """Serves ranges of one object."""

    protocol_version = "HTTP/1.1"
    data = random_bytes(200_000)

    def do_GET(self) -> None:
        start, stop = (int(at) for at in self.headers["Range"][len("bytes=") :].split("-"))
        body = self.data[start : stop + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {start}-{stop}/{len(self.data)}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_serves_whom_the_certificate_names_and_no_other(
    trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    endpoint = f"https://127.0.0.1:{server.server_address[1]}"
    options = {"endpoint_url": endpoint, "token": "anon"}
    monkeypatch.setitem(fsspec.config.conf, "gs", options)
    _client._filesystem.cache_clear()
    before = storage.set_retry_policy(storage.RetryPolicy(tries=2, first_s=0.01))
    try:
        if trusted:
            memory = bytearray(150_000)
            storage.read_into("gs://bucket/a", 1_000, memoryview(memory))
            assert memory == _Service.data[1_000:151_000]
            return
        with pytest.raises(storage.StorageError, match=r"gs://bucket/a: .*[Cc]ertificate"):
            storage.read_range("gs://bucket/a", 0, 10)
    finally:
        storage.set_retry_policy(before)
        _client._filesystem.cache_clear()
        _download._pool.cache_clear()
        server.shutdown()
        thread.join()
        server.server_close()
