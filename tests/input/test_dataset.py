import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.errors import ConfigError, DataError
from monolith_jax.input import Column, DataFile, Dataset, Ragged, dataset, find_files
from monolith_jax.input._order import Order
from monolith_jax.input.write import encode_example, frame

SCHEMA = (Column("id", "int64"), Column("list", "int64", None, ()))


def record(i: int) -> bytes:
    return frame(encode_example({"id": i, "list": np.arange(i, i + i % 4)}))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[DataFile]:
    """Seven files in three days; 100 examples with ids 0 to 99; two of the files are empty."""
    root = tmp_path_factory.mktemp("data")
    sizes, start = [0, 30, 1, 9, 0, 20, 40], 0
    for i, size in enumerate(sizes):
        folder = root / f"2026010{1 + i // 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"part-{i}").write_bytes(b"".join(map(record, range(start, start + size))))
        start += size
    return list(find_files(root, "20260101", "20260103"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded, in order."""
    calls: list[str] = []
    real = dataset.read_columns
    # What an earlier test's dataset still decodes ahead in its own threads is not counted.
    others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    def counting(path: str, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() not in others:
            calls.append(Path(path).name)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(dataset, "read_columns", counting)
    return calls


def ids(data: Dataset, k: int) -> list[int]:
    """The examples of a batch, padding left out; checks what holds of every batch."""
    batch = data.batch(k)
    found = batch.columns["id"]
    assert len(found) == len(batch.columns["list"]) == len(batch.weights) == data.batch_size
    assert batch.weights.dtype == np.float32
    n = batch.num_examples
    assert batch.weights.tolist() == [1.0] * n + [0.0] * (data.batch_size - n)
    assert set(found[n:].tolist()) <= {found[n - 1]}
    rows = batch.columns["list"]
    assert isinstance(rows, Ragged)
    for i, value in enumerate(found.tolist()):
        assert rows.row(i).tolist() == list(range(value, value + value % 4))
    return found[:n].tolist()


def epoch(data: Dataset, e: int = 0) -> list[int]:
    steps = range(e * data.steps_per_epoch, (e + 1) * data.steps_per_epoch)
    return [i for k in steps for i in ids(data, k)]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 10, 64, 100, 101])
def test_time_order(files: list[DataFile], batch_size: int, threads: int) -> None:
    data = Dataset(files, SCHEMA, batch_size=batch_size, threads=threads)
    assert data.num_examples == 100
    assert data.steps_per_epoch == -(-100 // batch_size)
    assert epoch(data) == epoch(data, 3) == list(range(100))
    last = data.batch(data.steps_per_epoch - 1)
    assert last.num_examples == 100 - (data.steps_per_epoch - 1) * batch_size


@settings(deadline=None, max_examples=40)
@given(window=st.integers(2, 120), batch_size=st.integers(1, 110), seed=st.integers(0, 2**64))
def test_windows_are_permuted(
    files: list[DataFile], window: int, batch_size: int, seed: int
) -> None:
    data = Dataset(
        files, SCHEMA, batch_size=batch_size, shuffle_window=window, seed=seed, threads=0
    )
    order = epoch(data)
    for start in range(0, 100, window):
        assert sorted(order[start : start + window]) == list(range(100))[start : start + window]


def test_epochs_and_seeds_differ_and_repeat(files: list[DataFile]) -> None:
    def full(seed: int) -> Dataset:
        return Dataset(files, SCHEMA, batch_size=9, seed=seed, shuffle_window=1000)

    orders = [tuple(epoch(full(seed), e)) for seed in (0, 1) for e in (0, 1)]
    assert len(set(orders)) == 4
    assert orders == [tuple(epoch(full(seed), e)) for seed in (0, 1) for e in (0, 1)]
    assert epoch(full(0)) != list(range(100))


def test_the_permutations_are_these_for_ever() -> None:
    """Fixed values: another numpy, or another version of this package, must give the same."""

    def places(order: Order, epoch: int, start: int, stop: int) -> list[int]:
        parts = order.places(epoch, start, stop)
        return [order.span(w)[0] + i for w, rows in parts for i in rows.tolist()]

    assert places(Order(10, seed=3, window=100), 0, 0, 10) == [0, 1, 2, 7, 5, 6, 9, 8, 4, 3]
    windows = Order(10, seed=2**40, window=4)
    assert places(windows, 7, 0, 10) == [2, 1, 0, 3, 6, 5, 4, 7, 9, 8]
    assert places(windows, 7, 3, 9) == [3, 6, 5, 4, 7, 9]


def test_batches_do_not_depend_on_what_was_read_before(files: list[DataFile]) -> None:
    def make() -> Dataset:
        return Dataset(files, SCHEMA, batch_size=8, seed=5, shuffle_window=30, cache_bytes=0)

    one = make()
    forwards = [ids(one, k) for k in range(40)]
    assert [ids(one, k) for k in reversed(range(40))] == forwards[::-1]
    assert [ids(make(), k) for k in (0, 13, 39)] == [forwards[k] for k in (0, 13, 39)]


def test_a_seek_decodes_only_the_files_of_its_window(
    files: list[DataFile], decoded: list[str]
) -> None:
    for step in (10, 10**7):  # one as cheap as the other
        data = Dataset(files, SCHEMA, batch_size=10, threads=0)
        assert decoded == []  # counting looks at headers only
        k = step * data.steps_per_epoch + 4
        assert ids(data, k) == list(range(40, 50))
        assert decoded == ["part-5"]
        ids(data, k + 1)
        assert decoded == ["part-5"]  # from the cache
        decoded.clear()
    data = Dataset(files, SCHEMA, batch_size=10, shuffle_window=20, threads=0)
    ids(data, 10**6 * data.steps_per_epoch + 2)  # examples 20 to 39
    assert sorted(decoded) == ["part-1", "part-2", "part-3"]


def test_each_file_is_decoded_once_per_epoch(files: list[DataFile], decoded: list[str]) -> None:
    data = Dataset(files, SCHEMA, batch_size=7, threads=0, cache_bytes=1)
    epoch(data)
    assert len(decoded) == len(set(decoded))
    assert {f"part-{i}" for i in (1, 2, 3, 5, 6)} <= set(decoded)  # the others are empty
    decoded.clear()
    data = Dataset(files, SCHEMA, batch_size=7, threads=2, shuffle_window=33)
    for e in range(3):
        epoch(data, e)
    assert len(decoded) == len(set(decoded))  # all of it fits in the cache


def test_the_cache_is_bounded(files: list[DataFile]) -> None:
    data = Dataset(files, SCHEMA, batch_size=5, threads=1, cache_bytes=800)
    for k in range(2 * data.steps_per_epoch):
        ids(data, k)
        held = sum(data._store._sizes.values())
        assert held <= 800 + max(data._store._sizes.values())


def test_a_window_larger_than_the_cache_is_gathered_once(
    files: list[DataFile], decoded: list[str]
) -> None:
    """A full shuffle of more than the cache holds: no batch decodes anything again."""
    data = Dataset(files, SCHEMA, batch_size=5, shuffle_window=100, cache_bytes=0, threads=0)
    for e in range(3):
        assert sorted(epoch(data, e)) == list(range(100))
    assert len(decoded) == len(set(decoded))
    assert not data._store._held  # the files are not held beside the window


def test_a_batch_across_windows(files: list[DataFile]) -> None:
    """Batches larger than windows, and windows that end in the middle of files."""
    data = Dataset(files, SCHEMA, batch_size=50, shuffle_window=15, cache_bytes=0, threads=0)
    order = epoch(data)
    for start in range(0, 100, 15):
        assert sorted(order[start : start + 15]) == list(range(100))[start : start + 15]


def test_several_threads_ask_at_once(files: list[DataFile], decoded: list[str]) -> None:
    data = Dataset(files, SCHEMA, batch_size=3, shuffle_window=50, threads=0)
    expected = [ids(data, k) for k in range(34)]  # no threads: nothing is decoded after the clear
    decoded.clear()
    data = Dataset(files, SCHEMA, batch_size=3, shuffle_window=50, threads=2)
    found: dict[int, list[int]] = {}

    def work(first: int) -> None:
        for k in range(first, 34, 4):
            found[k] = ids(data, k)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[k] for k in range(34)] == expected
    assert len(decoded) == len(set(decoded))


def test_the_meta_files_count_must_be_right(files: list[DataFile]) -> None:
    wrong = [
        DataFile(f.path, f.date, 21 if f.path.endswith("part-5") else f.num_records) for f in files
    ]
    data = Dataset(wrong, SCHEMA, batch_size=10)
    assert data.num_examples == 101
    with pytest.raises(DataError, match=r"part-5 has 20 records, 21 are expected"):
        data.batch(4)
    with pytest.raises(DataError, match="part-5 has 20 records"):  # not only the first time
        data.batch(4)


def test_damaged_records_are_an_error_or_counted(tmp_path: Path) -> None:
    damaged = bytearray(record(1))
    damaged[20] ^= 1
    for i, data in enumerate([record(0) + bytes(damaged) + record(2), record(3)]):
        (tmp_path / f"part-{i}").write_bytes(data)
    paths = [DataFile(f"{tmp_path}/part-0", None, 3), DataFile(f"{tmp_path}/part-1", None, 1)]
    with pytest.raises(DataError, match=r"part-0: record 1 at byte \d+ does not match"):
        Dataset(paths, SCHEMA, batch_size=2).batch(0)
    data = Dataset(paths, SCHEMA, batch_size=2, skip_damaged=True)
    assert (data.num_examples, data.damaged, data.steps_per_epoch) == (3, 1, 2)
    assert epoch(data) == [0, 2, 3]
    short = [DataFile(f"{tmp_path}/part-1", None, 7)]
    with pytest.raises(DataError, match="part-1 has 1 records, 7 are expected"):
        Dataset(short, SCHEMA, batch_size=2, skip_damaged=True)


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "part-0").write_bytes(b"")
    with pytest.raises(DataError, match="no files"):
        Dataset([], SCHEMA, batch_size=1)
    with pytest.raises(DataError, match="part-0: no records"):
        Dataset([tmp_path / "part-0"], SCHEMA, batch_size=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"seed": -1},
        {"shuffle_window": -1},
        {"cache_bytes": -1},
        {"threads": -1},
        {"schema": ()},
    ],
)
def test_settings_out_of_range(files: list[DataFile], wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="schema" if "schema" in wrong else next(iter(wrong))):
        Dataset(files, **({"schema": SCHEMA, "batch_size": 1} | wrong))


def test_a_negative_step(files: list[DataFile]) -> None:
    with pytest.raises(IndexError, match="batch -1"):
        Dataset(files, SCHEMA, batch_size=1).batch(-1)


def test_fingerprint(files: list[DataFile]) -> None:
    def fingerprint(**changes: Any) -> str:
        options = {"files": files, "schema": SCHEMA, "batch_size": 4, "seed": 1} | changes
        return Dataset(**options).fingerprint()

    base = fingerprint()
    assert base == fingerprint(check_crc=False, cache_bytes=0, threads=0)
    moved = [DataFile(f.path.replace("//", "/"), f.date, None) for f in files]
    assert base == fingerprint(files=moved)
    assert fingerprint(shuffle_window=100) == fingerprint(shuffle_window=10**9)
    changes: list[dict[str, Any]] = [
        {"files": files[1:]},
        {"schema": SCHEMA[:1]},
        {"batch_size": 5},
        {"seed": 2},
        {"shuffle_window": 10},
        {"skip_damaged": True},
    ]
    assert len({base, *(fingerprint(**change) for change in changes)}) == 7


def test_fingerprint_is_the_same_under_another_root(tmp_path: Path) -> None:
    prints = set()
    for name in ("here", "there"):
        folder = tmp_path / name / "20260101"
        folder.mkdir(parents=True)
        (folder / "part-0").write_bytes(record(1))
        prints.add(
            Dataset(
                find_files(tmp_path / name, "20260101", "20260101"), SCHEMA, batch_size=1
            ).fingerprint()
        )
    assert len(prints) == 1
