import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monolith_jax.errors import ConfigError
from monolith_jax.input import Batch, Column, Ragged, concat_rows, num_rows, take_rows


def ragged(rows: list[list[int]]) -> Ragged:
    return Ragged(
        np.array([v for row in rows for v in row], np.int64),
        np.cumsum([0] + [len(row) for row in rows]),
    )


def rows_of(value: Ragged) -> list[list[int]]:
    return [value.row(i).tolist() for i in range(len(value))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "needs a name"),
        ({"dtype": "int32"}, "dtype 'int32' is neither int64 nor float32"),
        ({"length": 0}, "length 0 is below 1"),
        ({"default": 0.5}, "default 0.5 must be an int"),
        ({"default": 2**63}, "does not fit int64"),
        ({"default": ()}, "is for variable lengths only"),
        ({"max_length": 3}, "is for variable lengths only"),
        ({"length": None, "default": 1}, "default can only be"),
        ({"length": None, "max_length": 0}, "max_length 0 is below 1"),
    ],
)
def test_what_makes_no_column(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Column(**({"name": "x", "dtype": "int64"} | arguments))  # type: ignore[arg-type]


LISTS = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6)


@given(LISTS, st.data())
def test_take_is_list_indexing(rows: list[list[int]], data: st.DataObject) -> None:
    indices = data.draw(
        st.lists(st.integers(0, len(rows) - 1), max_size=8) if rows else st.just([])
    )
    assert rows_of(ragged(rows).take(indices)) == [rows[i] for i in indices]
    cut = data.draw(st.slices(len(rows)).filter(lambda s: (s.step or 1) == 1))
    assert rows_of(ragged(rows).take(cut)) == rows[cut]


@given(st.lists(LISTS, min_size=1, max_size=4))
def test_concat_is_list_addition(parts: list[list[list[int]]]) -> None:
    whole = concat_rows([{"x": ragged(part), "n": np.arange(len(part))} for part in parts])
    assert isinstance(whole["x"], Ragged)
    assert rows_of(whole["x"]) == [row for part in parts for row in part]
    assert num_rows(whole) == sum(map(len, parts))


@given(LISTS, st.none() | st.integers(0, 5))
def test_padding_keeps_the_first_values(rows: list[list[int]], width: int | None) -> None:
    values, lengths = ragged(rows).to_padded(width)
    cut = max(map(len, rows), default=0) if width is None else width
    assert values.shape == (len(rows), cut)
    assert values.tolist() == [(row + [0] * cut)[:cut] for row in rows]
    assert lengths.tolist() == [min(len(row), cut) for row in rows]


def test_rows_that_are_not_there() -> None:
    value = ragged([[1], [2, 3]])
    with pytest.raises(IndexError, match="row 2 of 2"):
        value.row(2)
    with pytest.raises(IndexError, match=r"rows -1\.\.0 of 2"):
        value.take([0, -1])
    with pytest.raises(ValueError, match="step 2"):
        value.take(slice(0, 2, 2))
    with pytest.raises(IndexError):
        take_rows({"x": np.arange(2)}, [2])


def test_parts_that_do_not_fit_together() -> None:
    with pytest.raises(ValueError, match="no parts"):
        concat_rows([])
    with pytest.raises(ValueError, match="different columns"):
        concat_rows([{"a": np.arange(1)}, {"b": np.arange(1)}])


def test_slices_are_views_and_a_batch_counts_its_examples() -> None:
    columns = {"x": np.arange(4), "r": ragged([[1], [], [2, 3], [4]])}
    part = take_rows(columns, slice(1, 3))
    assert np.shares_memory(part["x"], columns["x"])
    assert np.shares_memory(part["r"].values, columns["r"].values)
    assert part["r"].offsets.tolist() == [0, 0, 2]
    assert num_rows({}) == 0
    assert Batch(columns, np.array([1, 1, 1, 0], np.float32)).num_examples == 3
