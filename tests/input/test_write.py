import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input.files import read_meta
from monolith_jax.input.write import (
    TFRecordWriter,
    atomic_file,
    encode_example,
    frame,
    masked_crc32c,
    write_tfrecord,
)
from monolith_jax.input.write_dated import DatedWriter, write_meta

int64 = st.integers(-(2**63), 2**63 - 1)
float32 = st.floats(width=32, allow_nan=False)
values = st.one_of(
    int64,
    float32,
    st.text(max_size=5),
    st.binary(max_size=200),
    st.lists(int64, min_size=1, max_size=40),
    st.lists(float32, min_size=1, max_size=40),
    st.lists(st.text(max_size=5), min_size=1, max_size=5),
    st.lists(st.binary(max_size=5), min_size=1, max_size=5),
)


def tf_example(tf: Any, features: dict[str, Any]) -> Any:
    """The same features through TensorFlow's protos."""
    example = tf.train.Example()
    for name, value in features.items():
        value = value if isinstance(value, list) else [value]
        feature = example.features.feature[name]
        if isinstance(value[0], int):
            feature.int64_list.value.extend(value)
        elif isinstance(value[0], float):
            feature.float_list.value.extend(value)
        else:
            encoded = [v.encode() if isinstance(v, str) else v for v in value]
            feature.bytes_list.value.extend(encoded)
    return example


@settings(deadline=None, max_examples=200)
@given(features=st.dictionaries(st.text(max_size=150), values, max_size=8))
def test_encoding_equals_tensorflows(tf: Any, features: dict[str, Any]) -> None:
    ours, theirs = encode_example(features), tf_example(tf, features)
    assert tf.train.Example.FromString(ours) == theirs
    assert len(ours) == theirs.ByteSize()  # Nothing beside it, no wasteful form.
    assert encode_example(dict(reversed(features.items()))) == ours


def test_encoding_in_bytes(tf: Any) -> None:
    # Names of one length: protobuf's own order of names where one begins another is odd.
    features = {"b": 1, "a": [0.5, 2.0], "d": "text", "c": [-1, 300]}
    expected = tf_example(tf, features).SerializeToString(deterministic=True)
    assert encode_example(features) == expected


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (np.array([1, -2], np.int8), "int64_list", [1, -2]),
        (np.uint32(7), "int64_list", [7]),
        (True, "int64_list", [1]),
        (np.array([True, False]), "int64_list", [1, 0]),
        (np.float64(0.1), "float_list", [np.float32(0.1)]),
        (np.array([0.5], np.float16), "float_list", [0.5]),
        ([1, 0.5], "float_list", [1.0, 0.5]),
        (np.zeros(0, np.int32), "int64_list", []),
        (np.zeros(0, np.float32), "float_list", []),
        (np.array(["ä"]), "bytes_list", ["ä".encode()]),
    ],
)
def test_array_values(tf: Any, value: Any, kind: str, expected: list[Any]) -> None:
    example = tf.train.Example.FromString(encode_example({"x": value}))
    feature = example.features.feature["x"]
    assert feature.WhichOneof("kind") == kind
    assert list(getattr(feature, kind).value) == expected


@pytest.mark.parametrize(
    "value",
    [[], None, [[1, 2]], {"a": 1}, 2**63, [1, 2**64], [1, None], ["a", 1, None], 1e300, 1j],
)
def test_encoding_rejects(value: Any) -> None:
    with pytest.raises(DataError, match="feature 'clicks'"):
        encode_example({"clicks": value})


@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000])
def test_framing_equals_tensorflows(tf: Any, tmp_path: Path, size: int) -> None:
    records = [random.Random(size).randbytes(size), b"second"]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert write_tfrecord(ours, records) == 2
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in records:
            writer.write(record)
    assert ours.read_bytes() == theirs.read_bytes()


def test_crc_of_a_known_string() -> None:
    # RFC 3720, B.4: the crc32c of 32 zero bytes is 0x8a9136aa.
    rotated = (0x8A9136AA >> 15 | 0x8A9136AA << 17) & 0xFFFFFFFF
    assert masked_crc32c(bytes(32)) == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def failing(record: bytes, path: Path, before: bytes | None) -> Iterator[bytes]:
    """One record, and then an exception; `path` must hold `before` all the while."""
    yield record
    assert (path.read_bytes() if path.exists() else None) == before
    raise ZeroDivisionError


def test_a_failed_file_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "part-00000"
    with pytest.raises(ZeroDivisionError):
        write_tfrecord(path, failing(b"record", path, None))
    assert list(path.parent.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "part-00000"
    write_tfrecord(path, [b"old"])
    with pytest.raises(ZeroDivisionError):
        write_tfrecord(path, failing(b"new", path, frame(b"old")))
    assert path.read_bytes() == frame(b"old")
    assert os.listdir(tmp_path) == ["part-00000"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"file/part: cannot be written: "):
        write_tfrecord(tmp_path / "file" / "part", [])


def test_write_outside_the_block(tmp_path: Path) -> None:
    writer = TFRecordWriter(tmp_path / "x")
    with pytest.raises(ValueError, match="inside the with block"):
        writer.write(b"")


def test_atomic_file_shows_nothing_before_the_end(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "x") as file:
        file.write(b"1")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_bytes() == b"1"


def test_meta_round_trip(tmp_path: Path) -> None:
    counts = {"20240102/00/part-00000": 5, "20240101/23/part-00000": 0}
    write_meta(tmp_path / "meta.csv", counts.items())
    text = (tmp_path / "meta.csv").read_text()
    assert text == "20240101/23/part-00000,0\n20240102/00/part-00000,5\n"
    assert read_meta(tmp_path / "meta.csv") == counts


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        ([("a", 1), ("a", 2)], "a is there twice"),
        ([("a,b", 1)], "cannot stand"),
        ([("a\nb", 1)], "cannot stand"),
        ([("", 1)], "cannot stand"),
        ([("a", -1)], "cannot stand"),
    ],
)
def test_write_meta_rejects(tmp_path: Path, counts: list[tuple[str, int]], match: str) -> None:
    with pytest.raises(DataError, match=match):
        write_meta(tmp_path / "meta.csv", counts)
    assert not (tmp_path / "meta.csv").exists()


def write_dated(root: Path, *times: int, then: Callable[[], Any] | None = None) -> None:
    """Writes an empty record at each time, one flush per record, and then calls `then`."""
    with DatedWriter(root, buffer_bytes=1) as writer:
        for time in times:
            writer.write(time, b"")
        if then is not None:
            then()


def read_all(root: Path) -> dict[str, bytes]:
    files = (p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


@pytest.mark.parametrize("buffer_bytes", [1, 200, 1 << 20])
def test_dated_writer_keeps_order_at_any_buffer(tmp_path: Path, buffer_bytes: int) -> None:
    rng = random.Random(0)
    times = [rng.randrange(0, 3 * 86400) for _ in range(300)]
    with DatedWriter(tmp_path, buffer_bytes=buffer_bytes) as writer:
        for i, time in enumerate(times):
            writer.write(time, b"%d" % i)
    assert writer.count == 300
    expected: dict[str, bytes] = {}
    for i, time in enumerate(times):
        path = f"1970010{time // 86400 + 1}/{time % 86400 // 3600:02d}/part-00000"
        expected[path] = expected.get(path, b"") + frame(b"%d" % i)
    found = read_all(tmp_path)
    meta = dict(line.split(",") for line in found.pop("meta.csv").decode().splitlines())
    assert found == expected
    assert list(meta) == sorted(expected)
    assert sum(map(int, meta.values())) == 300


def test_dated_writer_splits_full_files(tmp_path: Path) -> None:
    with DatedWriter(tmp_path, records_per_file=2) as writer:
        for i in range(5):
            writer.write(3600, b"%d" % i)
    assert read_meta(tmp_path / "meta.csv") == {
        "19700101/01/part-00000": 2,
        "19700101/01/part-00001": 2,
        "19700101/01/part-00002": 1,
    }
    assert (tmp_path / "19700101/01/part-00001").read_bytes() == frame(b"2") + frame(b"3")


def test_dated_writer_handles_times_before_1970(tmp_path: Path) -> None:
    with DatedWriter(tmp_path) as writer:
        writer.write(-1, b"")
        writer.write(-62135596800, b"")
    assert list(read_meta(tmp_path / "meta.csv")) == [
        "00010101/00/part-00000",
        "19691231/23/part-00000",
    ]


def test_dated_writer_leaves_root_as_it_was_on_failure(tmp_path: Path) -> None:
    write_dated(tmp_path, 0)
    before = read_all(tmp_path)
    with pytest.raises(ZeroDivisionError):
        write_dated(tmp_path, 86400, then=lambda: 1 / 0)
    assert read_all(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == ["19700101", "meta.csv"]


def test_dated_writer_adds_days(tmp_path: Path) -> None:
    for day in (1, 0, 2):
        write_dated(tmp_path, day * 86400)
    days = ["19700101", "19700102", "19700103"]
    assert [path[:8] for path in read_meta(tmp_path / "meta.csv")] == days


def test_dated_writer_touches_no_day_that_is_there(tmp_path: Path) -> None:
    write_dated(tmp_path, 86400)
    with pytest.raises(DataError, match="19700102 is there already: remove"):
        write_dated(tmp_path, 0, 86401)
    (tmp_path / "19700105").mkdir()
    with pytest.raises(DataError, match=r"19700105 is there already, but .*does not list it"):
        write_dated(tmp_path, 0, 4 * 86400)
    assert sorted(os.listdir(tmp_path)) == ["19700102", "19700105", "meta.csv"]


def test_dated_writer_sees_a_day_that_appeared_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="19700101 is there already"):
        write_dated(tmp_path, 0, 86400, then=(tmp_path / "19700101").mkdir)
    assert os.listdir(tmp_path) == ["19700101"]


@pytest.mark.parametrize("timestamp", [10**12, -(10**12), 10**30])
def test_dated_writer_rejects_absurd_times(tmp_path: Path, timestamp: int) -> None:
    with pytest.raises(DataError, match="is its unit right"):
        write_dated(tmp_path, timestamp)


def test_dated_writer_rejects_remote_roots() -> None:
    with pytest.raises(ConfigError, match="gs://bucket/x: data is written to a local folder"):
        DatedWriter("gs://bucket/x")


def test_dated_writer_names_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    with pytest.raises(DataError, match=r"root.*cannot be made"):
        write_dated(tmp_path / "root", 0)


def test_tensorflow_reads_the_dated_files(tf: Any, tmp_path: Path) -> None:
    with DatedWriter(tmp_path) as writer:
        for i in range(10):
            writer.write(i * 1800, encode_example({"i": i}))
    paths = sorted(str(p) for p in tmp_path.glob("*/*/part-*"))
    spec = {"i": tf.io.FixedLenFeature([], tf.int64)}
    dataset = tf.data.TFRecordDataset(paths).map(lambda r: tf.io.parse_single_example(r, spec))
    assert [int(row["i"]) for row in dataset] == list(range(10))
