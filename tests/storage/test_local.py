"""Local paths, and what holds for every path: joining, patterns, errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monolith_jax import storage
from monolith_jax.errors import UserError
from monolith_jax.storage._glob import compile_glob


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("20200501/00/part-0", "20200501/01/part-1", "20200502/00/part-0", "meta"):
        storage.write_bytes(tmp_path / name, name.encode())
    return tmp_path


def relative(paths: list[str], root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in paths]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    data = bytes(range(256)) * 50
    storage.write_bytes(path, data)
    assert storage.read_bytes(path) == data
    assert storage.size(path) == len(data)
    assert storage.read_range(path, 300, 20) == data[300:320]
    assert storage.read_range(path, len(data), 0) == b""
    with storage.open_read(path) as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]


def test_a_range_beyond_the_end_names_the_file_and_its_size(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "a", b"abc")
    with pytest.raises(storage.StorageError, match=r"a: bytes 2\.\.6 .* ends at 3"):
        storage.read_range(tmp_path / "a", 2, 4)
    with pytest.raises(storage.StorageError, match="no bytes"):
        storage.read_range(tmp_path / "a", -1, 2)


def test_listing(tree: Path) -> None:
    assert relative(storage.list_files(tree), tree) == [
        "20200501/00/part-0",
        "20200501/01/part-1",
        "20200502/00/part-0",
        "meta",
    ]
    assert relative(storage.list_files(tree, recursive=False), tree) == ["meta"]
    assert storage.list_folders(tree) == ["20200501", "20200502"]
    infos = storage.list_prefix(f"{tree}/202005")
    assert [info.size for info in infos] == [18, 18, 18]
    assert storage.list_prefix(f"{tree}/nothing/here") == []


def test_a_link_back_to_a_folder_above_ends_the_walk(tree: Path) -> None:
    (tree / "20200501" / "again").symlink_to(tree)
    assert len(storage.list_files(tree)) == 4


def test_exists_and_is_dir(tree: Path) -> None:
    assert storage.exists(tree / "meta")
    assert not storage.is_dir(tree / "meta")
    assert storage.exists(tree / "20200501")
    assert storage.is_dir(tree / "20200501")
    assert not storage.exists(tree / "20200503")


def test_delete(tree: Path) -> None:
    storage.delete(tree / "meta")
    assert not storage.exists(tree / "meta")
    with pytest.raises(storage.StorageError, match="recursive=True"):
        storage.delete(tree / "20200501")
    storage.delete(tree / "20200501", recursive=True)
    assert relative(storage.list_files(tree), tree) == ["20200502/00/part-0"]
    with pytest.raises(storage.NotFoundError):
        storage.delete(tree / "meta")


def test_upload_and_download_are_copies_here(tree: Path) -> None:
    storage.upload(tree / "meta", tree / "deep/copy")
    storage.download(tree / "deep/copy", tree / "deep/second")
    assert storage.read_bytes(tree / "deep/second") == b"meta"
    target = tree / "all"
    assert relative(storage.download_folder(tree / "20200501", target), target) == [
        "00/part-0",
        "01/part-1",
    ]


def test_a_missing_file_names_the_nearest(tree: Path) -> None:
    for call in (storage.read_bytes, storage.open_read, storage.size, storage.delete):
        with pytest.raises(storage.NotFoundError, match=r"metta.*did you mean meta\?"):
            call(tree / "metta")
    with pytest.raises(storage.NotFoundError, match=r"did you mean 20200501"):
        storage.list_files(tree / "2020051")
    with pytest.raises(UserError, match=r"no such file or folder$"):
        storage.read_bytes(tree / "no/such/folder")
    with pytest.raises(FileNotFoundError):
        storage.download(tree / "metta", tree / "x")
    assert not (tree / "x").exists()


def test_a_folder_is_no_file(tree: Path) -> None:
    for call in (storage.read_bytes, lambda path: storage.write_bytes(path, b"")):
        with pytest.raises(storage.StorageError, match="a folder, not a file"):
            call(tree / "20200501")


@pytest.mark.parametrize("path", ["s3://bucket/x", "file:///tmp/x"])
def test_other_schemes_are_refused(path: str) -> None:
    with pytest.raises(storage.StorageError, match="valid are gs:// and local paths"):
        storage.read_bytes(path)


def test_gs_through_pathlib_says_what_happened() -> None:
    with pytest.raises(storage.StorageError, match="pass the path as a string"):
        storage.read_bytes(Path("gs://bucket/x"))
    with pytest.raises(storage.StorageError, match="name of the bucket"):
        storage.read_bytes("gs://")
    with pytest.raises(storage.StorageError, match="empty path"):
        storage.read_bytes("")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    from monolith_jax.storage._local import atomic_writer

    path = tmp_path / "a"
    storage.write_bytes(path, b"before")

    def write_half() -> None:
        with atomic_writer(str(path)) as file:
            file.write(b"aft")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a"]


def test_a_killed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """SIGKILL between the bytes and the rename: the old file stays, nothing new is listed."""
    path = tmp_path / "a"
    storage.write_bytes(path, b"before")
    script = (
        "import os, signal, sys\n"
        "from monolith_jax.storage._local import atomic_writer\n"
        "with atomic_writer(sys.argv[1]) as file:\n"
        "    file.write(b'after'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60, check=False)
    assert killed.returncode == -9
    assert path.read_bytes() == b"before"
    assert len(os.listdir(tmp_path)) == 2  # the unfinished one is there, hidden
    assert storage.list_files(tmp_path) == [str(path)]
    assert storage.glob(f"{tmp_path}/*") == [str(path)]
    assert len(storage.list_prefix(f"{tmp_path}/")) == 1


def test_an_unwritable_folder_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(storage.StorageError, match="file/below"):
        storage.write_bytes(tmp_path / "file" / "below", b"x")


@pytest.mark.parametrize(
    "name",
    ["..", "../x", "a/../../x", "/etc/passwd", "a/..", "", "a//b", "./a", "a/", "a\0b"],
)
@pytest.mark.parametrize("folder", ["/tmp/run", "gs://bucket/run", "run"])
def test_join_refuses_to_leave_its_folder(folder: str, name: str) -> None:
    with pytest.raises(storage.StorageError, match="would leave its folder"):
        storage.join(folder, name)


@given(st.lists(st.text(alphabet="./a\\~:", max_size=6), min_size=1, max_size=3))
def test_joined_paths_stay_below_their_folder(names: list[str]) -> None:
    try:
        joined = storage.join("/tmp/run", *names)
    except storage.StorageError:
        return
    assert os.path.normpath(joined) == joined
    assert joined.startswith("/tmp/run/")


def test_join_keeps_roots() -> None:
    assert storage.join("/", "a") == "/a"
    assert storage.join("gs://bucket", "a", "b/c") == "gs://bucket/a/b/c"
    assert storage.join("gs://bucket/", "a") == "gs://bucket/a"
    with pytest.raises(storage.StorageError, match="bucket is missing"):
        storage.join("gs://", "a")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/*/part-0", ["20200501/00/part-0", "20200502/00/part-0"]),
        ("**/part*", ["20200501/00/part-0", "20200501/01/part-1", "20200502/00/part-0"]),
        ("2020050[2-9]/**", ["20200502/00/part-0"]),
        ("2020050[!2]/0?/part-?", ["20200501/00/part-0", "20200501/01/part-1"]),
        ("*", ["meta"]),
        ("meta", ["meta"]),
        ("meta/", []),
        ("*/[z-a]/*", []),
    ],
)
def test_glob(tree: Path, pattern: str, expected: list[str]) -> None:
    """What the pattern means here is what the regular expression for gs:// means."""
    assert relative(storage.glob(f"{tree}/{pattern}"), tree) == expected
    matches = compile_glob(pattern).fullmatch
    assert [name for name in relative(storage.list_files(tree), tree) if matches(name)] == expected


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("[]]", "]", True),
        ("[!]]", "]", False),
        ("[!]]", "x", True),
        ("[^a]", "^", True),
        ("[^a]", "b", False),
        ("[a", "[a", True),
        ("a.b", "axb", False),
        ("[&&~~||]", "~", True),
        ("[!a]", "/", False),
        (r"[\d]", "5", False),
        ("a**", "a/b", False),
        ("**", "a/b", True),
    ],
)
def test_sets_and_corners_of_patterns(pattern: str, name: str, fits: bool) -> None:
    assert bool(compile_glob(pattern).fullmatch(name)) == fits


def test_importing_storage_loads_neither_gcsfs_nor_tensorflow() -> None:
    script = (
        "import sys, monolith_jax.storage as s, tempfile, os\n"
        "s.write_bytes(os.path.join(tempfile.mkdtemp(), 'a'), b'')\n"
        "sys.exit(bool({'gcsfs', 'tensorflow', 'aiohttp'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 0
