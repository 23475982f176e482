"""gs:// against an emulator: the same results as on local paths, and what only gs:// has."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monolith_jax import storage
from monolith_jax.storage import _objects

pytestmark = pytest.mark.usefixtures("quick_retries")


def random_bytes(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> int:
    """Ranges of 256 KiB, so that some MB make many requests."""
    from monolith_jax.storage import _gcs

    monkeypatch.setattr(_objects, "RANGE", 256 << 10)
    monkeypatch.setattr(_gcs, "_SMALL", 256 << 10)
    return 256 << 10


def test_what_is_written_is_read(gcs: Any) -> None:
    path = gcs / "folder/a b#c?d%2F{e}ü"
    data = random_bytes(100_000)
    storage.write_bytes(path, data)
    assert storage.read_bytes(path) == data
    assert storage.size(path) == len(data)
    assert storage.read_range(path, 70_000, 20) == data[70_000:70_020]
    assert storage.list_files(gcs / "folder") == [path]
    storage.write_bytes(path, b"new")
    assert storage.read_bytes(path) == b"new"


def test_data_that_looks_like_the_end_of_a_request_is_written_whole(gcs: Any) -> None:
    data = b"a\r\n--==0==--\r\n\n--==0==\n" * 3
    storage.write_bytes(gcs / "a", data)
    assert storage.read_bytes(gcs / "a") == data


def test_empty_objects(gcs: Any, tmp_path: Path) -> None:
    storage.write_bytes(gcs / "empty", b"")
    assert storage.read_bytes(gcs / "empty") == b""
    assert storage.read_range(gcs / "empty", 0, 0) == b""
    storage.download(gcs / "empty", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""
    with storage.open_read(gcs / "empty") as file:
        assert file.read() == b""


def test_large_objects_go_in_ranges_both_ways(gcs: Any, tmp_path: Path, small_ranges: int) -> None:
    data = random_bytes(5 * small_ranges + 12_345)
    storage.write_bytes(gcs / "from-memory", data)
    (tmp_path / "a").write_bytes(data)
    storage.upload(tmp_path / "a", gcs / "from-file")
    for name in ("from-memory", "from-file"):
        assert storage.read_bytes(gcs / name) == data
        storage.download(gcs / name, tmp_path / "deep" / name)
        assert (tmp_path / "deep" / name).read_bytes() == data


def test_a_range_beyond_the_end_names_the_object_and_its_size(gcs: Any) -> None:
    storage.write_bytes(gcs / "a", b"abc")
    for start in (2, 3, 30):
        with pytest.raises(storage.StorageError, match=rf"{gcs.name}/a: bytes .* ends at 3"):
            storage.read_range(gcs / "a", start, 4)


def test_open_read_seeks_and_reads_one_generation(gcs: Any) -> None:
    data = random_bytes(300_000)
    storage.write_bytes(gcs / "a", data)
    with storage.open_read(gcs / "a") as file:
        assert file.read(10) == data[:10]
        file.seek(-7, os.SEEK_END)
        assert file.read() == data[-7:]
        file.seek(100)
        file.seek(50, os.SEEK_CUR)
        assert file.read(3) == data[150:153]
        with pytest.raises(ValueError, match="cannot seek to -1"):
            file.seek(-1)


def test_an_object_replaced_while_it_is_read_comes_out_whole(
    gcs: Any, small_ranges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the metadata and the bytes another version appears: the new one is read, unmixed."""
    old, new = random_bytes(4 * small_ranges, 1), random_bytes(3 * small_ranges, 2)
    storage.write_bytes(gcs / "a", old)
    stat, calls = _objects.stat, []

    def racing(*args: Any) -> _objects.Stat:
        found = stat(*args)
        calls.append(found)
        if len(calls) == 1:
            storage.write_bytes(gcs / "a", new)
        return found

    monkeypatch.setattr(_objects, "stat", racing)
    assert storage.read_bytes(gcs / "a") == new
    assert len(calls) == 2


def test_more_than_a_thousand_objects_are_listed_page_by_page(
    faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"run/{i % 3}/part-{i:04d}" for i in range(2_105)]
    with monkeypatch.context() as direct, ThreadPoolExecutor(8) as pool:
        direct.setenv("STORAGE_EMULATOR_HOST", faults.bucket.endpoint)  # faster past the proxy
        list(pool.map(lambda name: storage.write_bytes(faults.bucket / name, b""), names))
    expected = sorted(faults.bucket / name for name in names)
    assert storage.list_files(faults.bucket / "run") == expected
    assert sum("pageToken" in path for _, path in faults.requests) == 2
    assert storage.list_files(faults.bucket / "run/1/") == [p for p in expected if "/run/1/" in p]
    assert [info.path for info in storage.list_prefix(faults.bucket / "run/")] == expected
    assert storage.glob(faults.bucket / "run/*/part-*7") == [p for p in expected if p[-1] == "7"]
    assert storage.list_folders(faults.bucket / "run") == ["0", "1", "2"]
    storage.delete(faults.bucket / "run/1", recursive=True)
    assert storage.list_folders(faults.bucket / "run") == ["0", "2"]


@pytest.mark.parametrize(
    "pattern",
    ["*/*/part-0", "**/part*", "2020050[2-9]/**", "2020050[!2]/0?/part-?", "*", "meta", "no/*"],
)
def test_patterns_mean_the_same_as_on_local_files(gcs: Any, tmp_path: Path, pattern: str) -> None:
    for name in ("20200501/00/part-0", "20200501/01/part-1", "20200502/00/part-0", "meta", ".x"):
        storage.write_bytes(gcs / name, b"")
        storage.write_bytes(tmp_path / name, b"")
    remote = [path.removeprefix(gcs / "") for path in storage.glob(gcs / pattern)]
    local = [os.path.relpath(path, tmp_path) for path in storage.glob(f"{tmp_path}/{pattern}")]
    assert remote == local


def test_a_glob_names_its_bucket(gcs: Any) -> None:
    with pytest.raises(storage.StorageError, match="bucket is missing"):
        storage.glob("gs://*/a")


def test_folders_are_what_lies_below_them(gcs: Any) -> None:
    storage.write_bytes(gcs / "data/x", b"")
    storage.write_bytes(gcs / "data2/y", b"")
    assert storage.is_dir(gcs / "data")
    assert storage.is_dir(gcs / "data/")
    assert storage.exists(gcs / "data/x")
    assert storage.is_dir(gcs / "")
    assert not storage.is_dir(gcs / "dat")
    assert not storage.is_dir(gcs / "data/x")
    assert not storage.exists(gcs / "data/z")
    assert not storage.exists("gs://no-such-bucket-here/x")
    assert storage.list_files(gcs / "data") == [gcs / "data/x"]
    assert storage.list_files(gcs / "", recursive=False) == []
    assert [info.path for info in storage.list_prefix(gcs / "data")] == [
        gcs / "data/x",
        gcs / "data2/y",
    ]
    assert [info.name for info in storage.list_prefix(gcs / "data2")] == ["data2/y"]


def test_markers_of_empty_folders_are_no_files(gcs: Any) -> None:
    _objects.write(gcs.name, "data/", b"")
    storage.write_bytes(gcs / "data/x", b"1")
    assert storage.list_files(gcs / "data") == [gcs / "data/x"]
    with pytest.raises(storage.StorageError, match="a folder, not a file"):
        storage.read_bytes(gcs / "data/")


def test_missing_objects_folders_and_buckets_name_the_nearest(gcs: Any, tmp_path: Path) -> None:
    storage.write_bytes(gcs / "run/model.ckpt-7.meta", b"")
    storage.write_bytes(gcs / "data/20200501/part", b"")
    for call in (storage.read_bytes, storage.open_read, storage.size, storage.delete):
        with pytest.raises(
            storage.NotFoundError, match=rf"gs://{gcs.name}/run/.*did you mean model.ckpt-7.meta"
        ):
            call(gcs / "run/model.ckpt-7.mta")
    with pytest.raises(storage.NotFoundError, match="did you mean 20200501"):
        storage.list_files(gcs / "data/2020050")
    with pytest.raises(storage.NotFoundError, match="there is no bucket 'no-such-bucket-here'"):
        storage.read_bytes("gs://no-such-bucket-here/x")
    with pytest.raises(storage.NotFoundError, match="there is no bucket"):
        storage.write_bytes("gs://no-such-bucket-here/x", b"")
    with pytest.raises(storage.NotFoundError):
        storage.download(gcs / "run/nothing", tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_wrong_ends_of_a_copy(gcs: Any, tmp_path: Path) -> None:
    with pytest.raises(storage.StorageError, match="see upload"):
        storage.download(gcs / "a", gcs / "b")
    with pytest.raises(storage.StorageError, match="see download"):
        storage.upload(gcs / "a", tmp_path / "b")
    with pytest.raises(storage.NotFoundError):
        storage.upload(tmp_path / "missing", gcs / "b")
    storage.write_bytes(gcs / "f/a", b"")
    with pytest.raises(storage.StorageError, match="recursive=True"):
        storage.delete(gcs / "f")


def test_a_folder_is_downloaded_whole(gcs: Any, tmp_path: Path) -> None:
    for name in ("a", "x/b", "x/y/c"):
        storage.write_bytes(gcs / f"run/{name}", name.encode())
    got = storage.download_folder(gcs / "run", tmp_path / "to")
    assert got == [f"{tmp_path}/to/{name}" for name in ("a", "x/b", "x/y/c")]
    assert (tmp_path / "to/x/b").read_bytes() == b"x/b"


@pytest.mark.parametrize("name", ["../evil", "a/../../../evil", "/evil", "a//b", "./evil"])
def test_names_that_lead_out_of_the_target_folder_are_refused(
    gcs: Any, tmp_path: Path, name: str
) -> None:
    """Nothing at all is copied, not even the harmless objects beside it."""
    storage.write_bytes(gcs / "run/harmless", b"")
    storage.write_bytes(gcs / f"run/{name}", b"evil")
    with pytest.raises(storage.StorageError, match="would leave its folder"):
        storage.download_folder(gcs / "run", tmp_path / "deep/to")
    assert os.listdir(tmp_path) == []


def test_threads_share_a_connection_pool(gcs: Any) -> None:
    from monolith_jax.storage._client import filesystem

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: storage.write_bytes(gcs / f"{i}", b"%d" % i), range(64)))
        got = list(pool.map(lambda i: storage.read_bytes(gcs / f"{i}"), range(64)))
        made = set(pool.map(lambda _: id(filesystem(storage.retry_policy())), range(16)))
    assert got == [b"%d" % i for i in range(64)]
    assert len(made) == 1


def test_it_works_without_tensorflow(gcs: Any) -> None:
    """A fresh process where importing TensorFlow or Google's own client is an error."""
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'tensorflow': raise ImportError('refused: ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from monolith_jax import storage\n"
        "path = sys.argv[1]\n"
        "storage.write_bytes(path, b'abc')\n"
        "assert storage.read_bytes(path) == b'abc'\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script, gcs / "a"],
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr  # nor at the end, when connections are closed


def test_a_user_may_choose_gcsfs_bucket_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import os; from monolith_jax.storage import _client, retry_policy\n"
        "os.environ['STORAGE_EMULATOR_HOST'] = 'http://127.0.0.1:1'\n"
        "_client.filesystem(retry_policy())\n"
        "print(os.environ['GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT'])\n"
    )
    for given, seen in ((None, "false"), ("true", "true")):
        monkeypatch.delenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", raising=False)
        if given:
            monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", given)
        run = [sys.executable, "-c", script]
        done = subprocess.run(run, timeout=120, check=True, capture_output=True, text=True)
        assert done.stdout.strip() == seen


def test_quiet_work_logs_nothing(gcs: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        storage.write_bytes(gcs / "a", b"1")
        storage.read_bytes(gcs / "a")
    assert [r for r in caplog.records if r.name.startswith(("monolith_jax", "gcsfs"))] == []
