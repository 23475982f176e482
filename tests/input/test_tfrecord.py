import logging
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from monolith_jax.errors import ConfigError, DataError, UserError
from monolith_jax.input import Column, Ragged, _blocks, count_records, read_columns
from monolith_jax.input.write import encode_example, frame, masked_crc32c

ID = Column("id", "int64")


def records(count: int, start: int = 0) -> list[bytes]:
    return [
        frame(encode_example({"id": i, "genres": np.arange(i % 5), "score": i / 2}))
        for i in range(start, start + count)
    ]


def write(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "part-0"
    path.write_bytes(data)
    return str(path)


def test_a_file_and_its_bytes_give_the_same_columns(tmp_path: Path) -> None:
    schema = (Column("score", "float32"), Column("genres", "int64", None), ID)
    data = b"".join(records(100))
    for source in (data, write(tmp_path, data), Path(write(tmp_path, data))):
        columns, damaged = read_columns(source, schema)
        assert damaged == 0
        assert list(columns) == ["score", "genres", "id"]
        assert columns["id"].tolist() == list(range(100))
        assert columns["id"].dtype == np.int64
        assert columns["score"].tolist() == [i / 2 for i in range(100)]
        assert columns["score"].dtype == np.float32
        genres = columns["genres"]
        assert isinstance(genres, Ragged)
        assert genres.offsets.dtype == np.int64
        assert [genres.row(i).tolist() for i in range(7)] == [list(range(i % 5)) for i in range(7)]


@pytest.mark.parametrize("hint", [None, 0, 1, 99, 100, 10**15])
def test_the_number_of_records_is_only_a_hint(hint: int | None) -> None:
    columns, _ = read_columns(b"".join(records(100)), (ID,), num_records=hint)
    assert columns["id"].tolist() == list(range(100))


@pytest.mark.parametrize("block", [1, 50, 1000])
def test_records_across_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blocks, "BLOCK", block)
    big = frame(encode_example({"id": 7, "genres": np.arange(5000), "score": 1.0}))
    data = b"".join([*records(50), big, *records(3000, 50)])
    columns, _ = read_columns(data, (ID, Column("genres", "int64", None)))
    assert columns["id"].tolist() == [*range(50), 7, *range(50, 3050)]
    assert columns["genres"].row(50).tolist() == list(range(5000))
    assert columns["genres"].row(3050).tolist() == list(range(3049 % 5))
    assert count_records(data) == 3051
    with pytest.raises(DataError, match=f"record 3051 at byte {len(data)} is cut off"):
        read_columns(data + b"x", (ID,))


def test_no_records_and_records_without_features() -> None:
    columns, damaged = read_columns(b"", (ID, Column("genres", "int64", None)))
    assert len(columns["id"]) == len(columns["genres"]) == damaged == 0
    schema = (Column("id", "int64", 2, default=-1), Column("genres", "float32", None, ()))
    columns, _ = read_columns(frame(b"") + frame(b"\x0a\x00"), schema)
    assert columns["id"].tolist() == [[-1, -1], [-1, -1]]
    assert columns["genres"].offsets.tolist() == [0, 0, 0]
    assert count_records(b"") == 0


def test_columns_are_read_only() -> None:
    columns, _ = read_columns(records(1)[0], (ID, Column("genres", "int64", None)))
    with pytest.raises(ValueError, match="read-only"):
        columns["id"][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        columns["genres"].offsets[0] = 1


def test_max_length_keeps_the_first_values() -> None:
    data = frame(encode_example({"genres": [1, 2, 3, 4]})) + frame(encode_example({"genres": [5]}))
    columns, _ = read_columns(data, (Column("genres", "int64", None, max_length=2),))
    assert columns["genres"].values.tolist() == [1, 2, 5]


def test_defaults_of_both_types() -> None:
    schema = (
        Column("big", "int64", default=-(2**63)),
        Column("x", "float32", 2, default=0.1),
        Column("zero", "float32", default=0),
        ID,
    )
    columns, _ = read_columns(records(1)[0], schema)
    assert columns["big"].tolist() == [-(2**63)]
    assert columns["x"].tolist() == [[np.float32(0.1)] * 2]
    assert columns["zero"].tolist() == [0]


def test_many_columns_with_like_names() -> None:
    """Names that differ only in the middle share a hash: the table chains them."""
    names = [f"common_beginning_{i:03}_common_end" for i in range(100)]
    data = frame(encode_example({name: i for i, name in enumerate(names)}))
    schema = tuple(Column(name, "int64") for name in reversed(names))
    columns, _ = read_columns(data, schema)
    assert [columns[name].item() for name in names] == list(range(100))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (Column("genre", "int64", None), "has no feature 'genre': did you mean genres?"),
        (Column("id", "float32"), "has an int64_list in feature 'id', wanted a float_list"),
        (Column("score", "int64"), "has a float_list in feature 'score', wanted an int64_list"),
        (Column("title", "int64"), "has a bytes_list in feature 'title', wanted an int64_list"),
        (Column("pair", "int64"), "has 2 values in feature 'pair', wanted 1"),
        (Column("id", "int64", 3), "has 1 value in feature 'id', wanted 3"),
        (Column("none", "int64", default=1), "has 0 values in feature 'none', wanted 1"),
    ],
)
def test_a_record_that_does_not_fit_the_schema(column: Column, message: str) -> None:
    odd = {"id": 1, "genres": [1], "score": 0.5, "title": [b"x"], "pair": [1, 2]}
    data = frame(encode_example(odd | {"none": np.array([], np.int64)}))
    for skip in (False, True):  # a sound record is never skipped
        with pytest.raises(DataError) as caught:
            read_columns(data, (column,), skip_damaged=skip)
        assert str(caught.value) == f"<bytes>: record 0 at byte 0 {message}"


def test_the_message_names_file_record_and_byte(tmp_path: Path) -> None:
    sound = records(3)
    path = write(tmp_path, b"".join(sound) + frame(encode_example({"score": 1.0})))
    with pytest.raises(DataError) as caught:
        read_columns(path, (Column("score", "float32"), ID))
    at = sum(map(len, sound))
    assert str(caught.value) == (
        f"{path}: record 3 at byte {at} has no feature 'id': valid choices: score"
    )


def test_a_missing_feature_lists_what_there_is() -> None:
    with pytest.raises(DataError, match="valid choices: genres, id, score"):
        read_columns(records(1)[0], (Column("zzzzzzzz", "int64"),))


@pytest.mark.parametrize("where", ["length", "length crc", "data", "data crc"])
def test_a_flipped_bit_is_found_by_the_checksums(tmp_path: Path, where: str) -> None:
    parts = records(3)
    at = {"length": 0, "length crc": 9, "data": 20, "data crc": -1}[where]
    damaged = bytearray(parts[1])
    damaged[at] ^= 4
    path = write(tmp_path, parts[0] + bytes(damaged) + parts[2])
    with pytest.raises(DataError) as caught:
        read_columns(path, (ID,))
    assert str(caught.value).startswith(f"{path}: record 1 at byte {len(parts[0])} ")
    assert "does not match its checksum" in str(caught.value)
    columns, count = read_columns(path, (ID,), skip_damaged=True)
    assert count == 1
    # A broken length hides where the next record begins.
    assert columns["id"].tolist() == ([0] if "length" in where else [0, 2])
    if where == "length crc":
        assert read_columns(path, (ID,), check_crc=False)[0]["id"].tolist() == [0, 1, 2]


def test_what_is_skipped_at_the_end_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = records(3)
    path = write(tmp_path, b"".join(parts)[:-5])
    with caplog.at_level(logging.WARNING):
        columns, count = read_columns(path, (ID,), skip_damaged=True)
    assert columns["id"].tolist() == [0, 1]
    assert count == 1
    assert f"{path}: record 2 at byte {len(parts[0] + parts[1])} is cut off" in caplog.text
    assert f"the last {len(parts[2]) - 5} bytes of the file are skipped" in caplog.text


def test_every_cut_of_a_file_is_an_error_or_a_whole_number_of_records() -> None:
    parts = records(4)
    data, ends = b"".join(parts), np.cumsum([len(p) for p in parts]).tolist()
    for cut in range(len(data)):
        if cut in (0, *ends):
            assert len(read_columns(data[:cut], (ID,))[0]["id"]) == (0, *ends).index(cut)
            assert count_records(data[:cut]) == (0, *ends).index(cut)
        else:
            number = sum(end <= cut for end in ends)
            with pytest.raises(DataError, match=f"record {number} at byte .* is cut off"):
                read_columns(data[:cut], (ID,))
            with pytest.raises(DataError, match=f"record {number} at byte .* is cut off"):
                count_records(data[:cut])


@pytest.mark.parametrize("size", [2**20, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_hostile_length_with_a_right_checksum(size: int) -> None:
    header = struct.pack("<Q", size)
    data = records(1)[0] + header + struct.pack("<I", masked_crc32c(header)) + bytes(100)
    with pytest.raises(DataError, match="record 1 at byte"):
        read_columns(data, (ID,))
    with pytest.raises(DataError, match="record 1 at byte"):
        count_records(data)


def test_data_that_is_no_example() -> None:
    data = records(2)[1] + frame(b"\x0a\x7f not protobuf") + records(1)[0]
    with pytest.raises(DataError, match=r"record 1 at byte \d+ is no tf.Example: malformed at"):
        read_columns(data, (ID,))
    columns, count = read_columns(data, (ID,), skip_damaged=True)
    assert columns["id"].tolist() == [1, 0]
    assert count == 1


def test_a_compressed_file_and_other_files(tmp_path: Path) -> None:
    import gzip

    with pytest.raises(DataError, match="begins like gzip"):
        read_columns(gzip.compress(b"".join(records(9))), (ID,))
    with pytest.raises(DataError, match=r"record 0 at byte 0 .* this is no TFRecord"):
        read_columns(b"id,score\n1,2\n3,4\n", (ID,))
    with pytest.raises(DataError, match=r"missing: No such file"):
        read_columns(tmp_path / "missing", (ID,))
    with pytest.raises(DataError, match="Is a directory"):
        count_records(tmp_path)


def test_no_columns_and_two_of_one_name() -> None:
    with pytest.raises(ConfigError, match="without columns"):
        read_columns(b"", ())
    with pytest.raises(ConfigError, match="declared twice: id"):
        read_columns(b"", (ID, Column("id", "float32")))


def test_threads_read_at_the_same_time() -> None:
    data, results = b"".join(records(2000)), []

    def work() -> None:
        for _ in range(5):
            results.append(read_columns(data, (ID,))[0]["id"].sum())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1999 * 1000] * 20


def test_errors_are_the_users() -> None:
    assert issubclass(DataError, UserError)
    assert issubclass(ConfigError, UserError)


def test_importing_the_room_compiles_and_loads_nothing() -> None:
    script = (
        "import sys, monolith_jax.input as room\n"
        "heavy = {'numba', 'llvmlite', 'tensorflow', 'gcsfs'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "room.count_records(b'')\n"
        "assert 'numba' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
