"""Entries into rows: by id, by a list, by a function; what has no place is reported."""

import numpy as np
import pytest

from monolith_jax.checkpoint.monolith_assets import Slice, TableDump, place, signatures_of, slots_of
from monolith_jax.errors import CheckpointError


def table(ids):
    ids = np.array(ids, np.int64)
    embeddings = np.stack([ids, -ids], axis=1).astype(np.float32)
    slots = {"norm": embeddings + 0.5, "last_update_step": ids * 10, "one": ids.astype(np.float32)}
    return TableDump("t", ids, embeddings, (Slice("dynamic", 2, slots),), np.zeros_like(ids))


def test_an_id_is_its_row():
    placed = place(table([2, 0, 9, -1]), 4)
    assert placed.embeddings.tolist() == [[0, 0], [0, 0], [2, -2], [0, 0]]
    assert placed.filled.tolist() == [True, False, True, False]
    slots = placed.slices[0].slots
    assert slots["norm"][2].tolist() == [2.5, -1.5]
    assert slots["last_update_step"].tolist() == [0, 0, 20, 0]
    assert slots["last_update_step"].dtype == np.int64
    report = placed.report
    assert (report.entries, report.placed, report.without_row, report.empty) == (4, 2, 2, 2)
    assert report.examples == (9, -1)
    assert "2 ids without a row (such as 9, -1)" in str(report)


@pytest.mark.parametrize("seed", range(5))
def test_a_list_of_ids_as_a_dict_would_do_it(seed):
    rng = np.random.default_rng(seed)
    vocabulary = rng.choice(1000, 300, replace=False)
    dump = table(rng.integers(0, 1000, 400))
    placed = place(dump, 320, vocabulary)
    want = {int(vocabulary[r]): r for r in range(300)}
    rows = np.zeros((320, 2), np.float32)
    for i, one in enumerate(dump.ids.tolist()):
        if one in want:
            rows[want[one]] = dump.embeddings[i]
    np.testing.assert_array_equal(placed.embeddings, rows)
    found = {one for one in dump.ids.tolist() if one in want}
    assert placed.report.placed == len(found) == np.count_nonzero(placed.filled)
    total = placed.report.placed + placed.report.repeated + placed.report.without_row
    assert total == 400


def test_of_an_id_that_comes_twice_the_last_counts():
    dump = table([1, 1])
    dump.embeddings[1] = 7
    placed = place(dump, 2)
    assert placed.embeddings[1].tolist() == [7, 7]
    assert placed.report.repeated == 1


def test_a_function_of_ids():
    ids = [(5 << 48) + 1, (5 << 48) + 3]
    assert slots_of(np.array(ids)).tolist() == [5, 5]
    assert place(table(ids), 4, signatures_of).filled.tolist() == [False, True, False, True]
    assert slots_of(np.array([-1]), 1).tolist() == [1023]


def test_rows_without_an_entry_keep_their_start():
    initial = np.full((3, 2), 9, np.float32)
    placed = place(table([1]), 3, initial=initial, initial_slots={"dynamic.norm": 0.1})
    assert placed.embeddings.tolist() == [[9, 9], [1, -1], [9, 9]]
    np.testing.assert_array_equal(placed.slices[0].slots["norm"][0], np.float32([0.1, 0.1]))
    assert initial[1].tolist() == [9, 9]


def test_no_entries():
    placed = place(table([]), 2)
    assert (placed.embeddings.shape, placed.report.empty) == ((2, 2), 2)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rows": lambda ids: ids * 0}, "ids 1 and 2 both have row 0"),
        ({"rows": lambda ids: ids + 5}, "id 2 has row 7; there are 3 rows"),
        ({"rows": lambda ids: ids[:1]}, r"the function of rows gave int64 \[1\]"),
        ({"rows": np.array([4, 1, 4])}, "the list of ids has 4 in rows 0 and 2"),
        ({"rows": np.arange(4)}, r"a list of ids is int64 \[m\], m <= 3"),
        ({"initial": np.zeros((3, 1))}, r"initial is \[3, 1\], the table \[3, 2\]"),
        ({"initial_slots": {"dynamic.nrm": 1}}, "no slot 'dynamic.nrm'; did you mean dynamic.norm"),
    ],
)
def test_errors_name_the_table(arguments, match):
    with pytest.raises(CheckpointError, match=f"table 't': {match}"):
        place(table([1, 2]), 3, **arguments)
