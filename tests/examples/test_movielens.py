import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monolith_jax.input import Ragged, concat_rows, find_files, read_columns
from monolith_jax.tasks import movielens_data as data

pytest.importorskip("sklearn", reason="the baselines: pip install -e '.[examples]'")


@pytest.fixture(scope="module")
def example() -> Any:
    path = Path(__file__).parents[2] / "examples" / "movielens.py"
    spec = importlib.util.spec_from_file_location("examples_movielens", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ratings(example: Any) -> Any:
    """Four users, three items; the last two ratings are of the day after the training days."""
    ids = {
        data.USER_ID: np.array([1, 1, 2, 2, 3, 4]),
        data.ITEM_ID: np.array([1, 2, 1, 3, 2, 1]),
        data.AGE: np.array([24, 24, 53, 53, 7, 99]),
        data.GENDER: np.array([0, 0, 1, 1, 0, 1]),
        data.OCCUPATION: np.array([20, 20, 0, 0, 3, 4]),
    }
    genres = Ragged(np.array([1, 5, 18, 1, 5, 2, 3, 4, 18, 1, 5]), np.array([0, 2, 3, 5, 8, 9, 11]))
    rating = np.array([5, 4, 3, 1, 4, 2], np.float32)
    # 1998-03-29 23:59:59 UTC is the last second of the training days.
    time = np.array([874724710, 874724711, 891215998, 891215999, 891216000, 893286638])
    return example.Ratings(ids, genres, rating, time)


def test_the_time_split(example: Any, ratings: Any) -> None:
    assert ratings.up_to(example.LAST_TRAINING_DAY).tolist() == [True] * 4 + [False] * 2
    assert ratings.label.tolist() == [True, True, False, False, True, False]


def test_means(example: Any, ratings: Any) -> None:
    target = ratings.rating.astype(np.float64)
    found = example.mean_predictors(ratings, target, np.arange(4), np.array([0, 4, 5]))
    mean, shrunk = 13 / 4, 5.0
    user_1 = (5 + 4 - 2 * mean) / (2 + shrunk)
    user_2 = (3 + 1 - 2 * mean) / (2 + shrunk)
    item_1, item_2 = (5 + 3 - 2 * mean) / (2 + shrunk), (4 - mean) / (1 + shrunk)
    left_1 = (5 + 3 - 2 * mean - user_1 - user_2) / (2 + shrunk)
    left_2 = (4 - mean - user_1) / (1 + shrunk)
    expected = {
        "global mean": [mean] * 3,
        "user means": [mean + user_1, mean, mean],
        "item means": [mean + item_1, mean + item_2, mean + item_1],
        "user + item means": [mean + user_1 + left_1, mean + left_2, mean + left_1],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)


def test_one_hot(example: Any, ratings: Any) -> None:
    matrix = example.one_hot(ratings).toarray()
    assert matrix.shape == (6, sum(data.VOCABULARY_SIZES.values()))
    np.testing.assert_allclose(matrix.sum(1), 6)  # five ids, and genres that add up to 1
    genres = matrix[:, -data.VOCABULARY_SIZES[data.GENRES] :]
    np.testing.assert_allclose(genres[3, [2, 3, 4]], 1 / 3)
    assert np.flatnonzero(matrix[5])[:3].tolist() == [4, 944 + 1, 944 + 1683 + 99]


def test_folds(example: Any) -> None:
    parts = list(example.folds(103, seed=1))
    tests = np.concatenate([test for _, test in parts])
    assert len(parts) == 5
    assert sorted(tests) == list(range(103))
    assert all(len(np.union1d(train, test)) == 103 for train, test in parts)
    assert not np.array_equal(tests, np.concatenate([t for _, t in example.folds(103, seed=2)]))


def test_write_split(example: Any, ratings: Any, tmp_path: Path) -> None:
    sides = {example.TRAIN_DAY: np.array([0, 3, 5]), example.TEST_DAY: np.array([1, 2, 4])}
    example.write_split(tmp_path, ratings, *sides.values())
    for day, rows in sides.items():
        files = find_files(tmp_path, day, day)
        assert [file.num_records for file in files] == [3]
        found = concat_rows([read_columns(file.path, example.SCHEMA)[0] for file in files])
        for name, values in ratings.ids.items():
            assert np.array_equal(found[name], values[rows])
        assert np.array_equal(found[data.RATING], ratings.rating[rows])
        genres = found[data.GENRES]
        assert isinstance(genres, Ragged)
        for i, row in enumerate(rows):
            assert genres.row(i).tolist() == ratings.genres.row(row).tolist()
