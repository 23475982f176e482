"""Distinct rows of a batch, against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._unique import _AHEAD, _CHUNK, _NEAR, Scratch, unique_rows

FAR = 64 * _NEAR + 65  # rows of a table whose words are fetched ahead
TABLES = [1, 63, 64, 65, 511, 513, 4095, 4097, 10_000, FAR]


def batches_of(rows: int) -> st.SearchStrategy[tuple[int, list[list[int]]]]:
    """A table's rows, and batches of its ids: any, often the last one, or one id many times."""
    ids = st.one_of(st.integers(-3, rows - 1), st.just(rows - 1))
    equal = st.builds(lambda one, times: [one] * times, ids, st.integers(1, 400))
    batch = st.one_of(st.lists(ids, max_size=400), equal)
    return st.tuples(st.just(rows), st.lists(batch, min_size=1, max_size=3))


def check(batch: np.ndarray, scratch: Scratch, room: int = 0) -> None:
    """One batch equals numpy's answer, and leaves the scratch as it was."""
    unique, count, index = unique_rows(batch, scratch, room)
    there = batch >= 0
    want, inverse = np.unique(batch[there], return_inverse=True)
    np.testing.assert_array_equal(unique[:count], want)
    assert len(unique) == max(len(batch), room)
    np.testing.assert_array_equal(index[there], inverse)
    assert (index[~there] == NONE).all()
    assert (unique.dtype, index.dtype) == (np.int32, np.int32)
    assert not scratch.words.any()
    assert not scratch.summary.any()


@given(st.sampled_from(TABLES).flatmap(batches_of))
@settings(max_examples=150, deadline=None)
def test_batches_on_one_scratch_equal_numpy(case: tuple[int, list[list[int]]]) -> None:
    rows, batches = case
    scratch = Scratch(rows)
    for ids in batches:
        check(np.array(ids, np.int32), scratch)


@pytest.mark.parametrize("rows", [4097, FAR])
@pytest.mark.parametrize(
    "length",
    [0, 1, _CHUNK - 1, _CHUNK, _AHEAD, _AHEAD + 1, _AHEAD + _CHUNK, _AHEAD + _CHUNK + 1, 20_000],
)
def test_lengths_around_what_is_fetched_ahead(length: int, rows: int) -> None:
    rng = np.random.default_rng(length)
    scratch = Scratch(rows)
    for low in (0, rows // 2, rows - 70):  # few rows, so that words have any number of marks
        check(rng.integers(low, rows, length, np.int32), scratch)
        check(rng.integers(-9, rows, length, np.int32), scratch)


@pytest.mark.parametrize("room", [1, 9, 10, 500])
def test_the_list_has_room_for_more(room: int) -> None:
    check(np.array([3, -1, 3, 9, 8, 7, 6, 5, 4, 2], np.int32), Scratch(10), room)


def test_a_batch_may_hold_every_row_once() -> None:
    scratch = Scratch(4097)
    check(np.random.default_rng(0).permutation(4097).astype(np.int32), scratch)
    check(np.arange(4097, dtype=np.int32), scratch)
