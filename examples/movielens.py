"""Quality on MovieLens-100K: the two bundled models beside the baselines, on the same splits.

    python examples/movielens.py [--root DIR] [--seed N] [--seeds N]

Prints the numbers of the README in some minutes on two cores. Two tasks, the data fetched on first
use:

* rating >= 4 on the time split: train on the days up to `LAST_TRAINING_DAY`, AUC on the days after
  it. Four fifths of the ratings after it come from users who have none before it. The
  hyperparameters of the logistic regression are chosen on the last training days, never on the
  test days.
* the rating itself, RMSE as the mean of five random folds.

Needs scikit-learn: pip install 'monolith-jax[examples]'.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold

from monolith_jax import training
from monolith_jax.errors import UserError
from monolith_jax.input import Column, Ragged, concat_rows, find_files, read_columns
from monolith_jax.input.write import encode_example
from monolith_jax.input.write_dated import DatedWriter
from monolith_jax.task import TaskConfig
from monolith_jax.tasks import movielens
from monolith_jax.tasks import movielens_data as data

LAST_TRAINING_DAY = movielens.LAST_TRAINING_DAY
LAST_TUNING_DAY = "19980228"  # up to it the baselines train while their settings are chosen
IDS = (data.USER_ID, data.ITEM_ID, data.AGE, data.GENDER, data.OCCUPATION)
SCHEMA = (
    *(Column(name, "int64") for name in (*IDS, data.TIMESTAMP)),
    Column(data.GENRES, "int64", length=None),
    Column(data.RATING, "float32"),
)
POSITIVE = 4.0
CHOICES_OF_C = (0.03, 0.1, 0.3, 1.0, 3.0)
SHRINKAGE = 5.0
FOLDS = 5
# `write_split` puts the two sides of a random split on two days, so that dates tell them apart.
TRAIN_DAY, TEST_DAY = "20000101", "20000102"
_TRAIN_S, _TEST_S = 946684800, 946771200


@dataclass(frozen=True)
class Ratings:
    """All ratings in order of time; every array has one row per rating.

    Attributes:
      ids: int64 [n] each, by feature: user, item, age, gender, occupation.
      genres: the item's genres, n rows.
      rating: float32 [n], 1 to 5.
      timestamp: int64 [n], seconds since 1970 UTC.
    """

    ids: Mapping[str, np.ndarray]
    genres: Ragged
    rating: np.ndarray
    timestamp: np.ndarray

    @property
    def label(self) -> np.ndarray:
        """Whether the rating is at least 4, bool [n]."""
        return self.rating >= POSITIVE

    def up_to(self, day: str) -> np.ndarray:
        """Returns which ratings were given on `day` (YYYYMMDD, UTC) or before, bool [n]."""
        midnight = np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}", "s") + np.timedelta64(1, "D")
        return self.timestamp < midnight.astype(np.int64)


def load(root: Path) -> Ratings:
    """Reads the prepared data; the files' order is that of time."""
    files = find_files(root, data.FIRST_DAY, data.LAST_DAY)
    rows = concat_rows([read_columns(file.path, SCHEMA)[0] for file in files])
    ids = {name: np.asarray(rows[name]) for name in IDS}
    genres = rows[data.GENRES]
    assert isinstance(genres, Ragged)
    return Ratings(ids, genres, np.asarray(rows[data.RATING]), np.asarray(rows[data.TIMESTAMP]))


def folds(count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (training rows, test rows) of five random folds of `count` ratings."""
    yield from KFold(FOLDS, shuffle=True, random_state=seed).split(np.zeros(count))


def write_split(root: Path, ratings: Ratings, train: np.ndarray, test: np.ndarray) -> None:
    """Writes a split for the trainer: rows `train` on TRAIN_DAY, rows `test` on TEST_DAY."""
    with DatedWriter(root) as writer:
        for rows, time in ((train, _TRAIN_S), (test, _TEST_S)):
            for row in rows:
                features = {name: values[row] for name, values in ratings.ids.items()}
                features[data.GENRES] = ratings.genres.row(int(row))
                features[data.RATING] = ratings.rating[row]
                features[data.TIMESTAMP] = ratings.timestamp[row]
                writer.write(time, encode_example(features))


def shrunk_means(keys: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Returns each key's mean of `values`, drawn to 0 as by `SHRINKAGE` values of 0; [size].

    A key without values gets 0.
    """
    sums = np.bincount(keys, weights=values, minlength=size)
    return sums / (np.bincount(keys, minlength=size) + SHRINKAGE)


def mean_predictors(
    ratings: Ratings, target: np.ndarray, train: np.ndarray, test: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns what the means predict for the rows `test` when fitted on the rows `train`.

    With m the mean of all: m; m + b_u; m + b_i; and m + b_u + b_i, where b_i is of what b_u leaves.
    """
    user, item = ratings.ids[data.USER_ID], ratings.ids[data.ITEM_ID]
    users, items = data.VOCABULARY_SIZES[data.USER_ID], data.VOCABULARY_SIZES[data.ITEM_ID]
    mean = float(target[train].mean())
    rest = target[train] - mean
    by_user = shrunk_means(user[train], rest, users)
    by_item = shrunk_means(item[train], rest, items)
    left = shrunk_means(item[train], rest - by_user[user[train]], items)
    return {
        "global mean": np.full(len(test), mean),
        "user means": mean + by_user[user[test]],
        "item means": mean + by_item[item[test]],
        "user + item means": mean + by_user[user[test]] + left[item[test]],
    }


def one_hot(ratings: Ratings) -> scipy.sparse.csr_matrix:
    """Returns the features of DeepFM as 0 and 1, an item's genres as 1 over their number."""
    count, columns = len(ratings.rating), sum(data.VOCABULARY_SIZES.values())
    rows, places, values, start = [], [], [], 0
    for name, size in data.VOCABULARY_SIZES.items():
        if name == data.GENRES:
            lengths = ratings.genres.lengths
            rows.append(np.repeat(np.arange(count), lengths))
            places.append(ratings.genres.values + start)
            values.append(np.repeat(1 / lengths, lengths))
        else:
            rows.append(np.arange(count))
            places.append(ratings.ids[name] + start)
            values.append(np.ones(count))
        start += size
    where = (np.concatenate(rows), np.concatenate(places))
    return scipy.sparse.csr_matrix((np.concatenate(values), where), shape=(count, columns))


def logistic_regression(ratings: Ratings) -> tuple[float, np.ndarray]:
    """Returns the C that is best on the last training days, and the scores of the test days."""
    features, label = one_hot(ratings), ratings.label
    tuning, training = ratings.up_to(LAST_TUNING_DAY), ratings.up_to(LAST_TRAINING_DAY)
    held_out = training & ~tuning

    def scores(c: float, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        model = LogisticRegression(C=c, max_iter=2000).fit(features[train], label[train])
        return model.decision_function(features[test])

    quality = {c: roc_auc_score(label[held_out], scores(c, tuning, held_out)) for c in CHOICES_OF_C}
    best = max(quality, key=lambda c: quality[c])
    return best, scores(best, training, ~training)


def auc_baselines(ratings: Ratings) -> dict[str, float]:
    """Returns the test AUC of each baseline on the time split, label rating >= 4."""
    training = ratings.up_to(LAST_TRAINING_DAY)
    train, test = np.flatnonzero(training), np.flatnonzero(~training)
    label = ratings.label
    scores = mean_predictors(ratings, label.astype(np.float64), train, test)
    c, scores["logistic regression"] = logistic_regression(ratings)
    result = {name: float(roc_auc_score(label[test], score)) for name, score in scores.items()}
    result[f"logistic regression, C = {c:g}"] = result.pop("logistic regression")
    return result


def rmse_baselines(ratings: Ratings, seed: int) -> dict[str, float]:
    """Returns the RMSE of each baseline, the mean of five random folds."""
    target = ratings.rating.astype(np.float64)
    errors: dict[str, list[float]] = {}
    for train, test in folds(len(target), seed):
        for name, predicted in mean_predictors(ratings, target, train, test).items():
            error = float(np.sqrt(np.mean((predicted - target[test]) ** 2)))
            errors.setdefault(name, []).append(error)
    return {name: float(np.mean(values)) for name, values in errors.items()}


def deepfm_auc(root: Path, seed: int) -> float:
    """Trains movielens.DeepFM on the time split and returns its test AUC."""
    task = movielens.DeepFM().task()
    return _last(replace(task, input=replace(task.input, root=str(root))), "auc", seed)


def factorization_rmse(ratings: Ratings, seed: int) -> Iterator[float]:
    """Trains movielens.MatrixFactorization on five random folds and yields each test RMSE."""
    task = movielens.MatrixFactorization().task()
    for fold, (rows, test) in enumerate(folds(len(ratings.rating), seed)):
        with tempfile.TemporaryDirectory() as root:
            write_split(Path(root), ratings, rows, test)
            source = replace(
                task.input,
                root=root,
                start_date=TRAIN_DAY,
                end_date=TRAIN_DAY,
                eval_start_date=TEST_DAY,
                eval_end_date=TEST_DAY,
            )
            yield _last(replace(task, input=source), "rmse", fold)


def _last(task: TaskConfig, metric: str, seed: int) -> float:
    """Trains in a folder that is thrown away; returns a metric of the last evaluation."""
    task = replace(
        task,
        input=replace(task.input, seed=seed),
        train=replace(task.train, seed=seed, log_every=1000, eval_every=10**6),
    )
    with tempfile.TemporaryDirectory() as model_dir:
        return training.train(task, model_dir, show=False)[metric]


def show(title: str, rows: Mapping[str, float]) -> None:
    if title:
        print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<32}{value:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="MovieLens-100K: quality, with baselines.")
    parser.add_argument("--root", help="the prepared data; default: the cache, filled if empty")
    parser.add_argument("--seed", type=int, default=0, help="of the random folds")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds of DeepFM")
    options = parser.parse_args()
    root = data.prepare(options.root, progress=print)
    ratings = load(root)
    share = ratings.up_to(LAST_TRAINING_DAY).mean()
    title = f"rating >= 4, trained up to {LAST_TRAINING_DAY} ({share:.1%}), after it: AUC"
    show(title, auc_baselines(ratings))
    aucs = [deepfm_auc(root, seed) for seed in range(options.seeds)]
    named = {f"movielens.DeepFM, seed {seed}": auc for seed, auc in enumerate(aucs)}
    show("", named | {"movielens.DeepFM, mean": float(np.mean(aucs))})
    show(f"rating, {FOLDS} folds, seed {options.seed}: RMSE", rmse_baselines(ratings, options.seed))
    errors = list(factorization_rmse(ratings, options.seed))
    named = {f"MatrixFactorization, fold {k}": error for k, error in enumerate(errors)}
    show("", named | {"MatrixFactorization, mean": float(np.mean(errors))})


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
