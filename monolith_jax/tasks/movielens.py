"""MovieLens-100K: click prediction with a DeepFM, rating prediction by matrix factorization.

    monolith-jax train movielens.DeepFM --model-dir DIR
    monolith-jax train movielens.MatrixFactorization --model-dir DIR

The data are fetched on first use (`movielens_data`). Both train on the ratings up to
`LAST_TRAINING_DAY` and evaluate on the days after it; `examples/movielens.py` prints the quality
numbers of the README, with the baselines beside them.
"""

import sys

from monolith_jax.embedding import Constant, FeatureConfig, Normal, TableConfig
from monolith_jax.models import DeepFMConfig, MatrixFactorizationConfig
from monolith_jax.optimizers import Adagrad, Adam, LazyAdam, UpdateRule
from monolith_jax.registry import RegisterSingleTaskModel
from monolith_jax.task import (
    InputConfig,
    LabelConfig,
    SingleTaskModelParams,
    TaskConfig,
    TrainConfig,
)
from monolith_jax.tasks import movielens_data as data

FIRST_DAY, LAST_TRAINING_DAY = "19970920", "19980301"
FIRST_EVALUATION_DAY, LAST_DAY = "19980302", "19980422"

# Ids are the codes of `movielens_data`: one more row than the largest code, since users and items
# count from 1.
VOCABULARY = {
    "user_id": 944,
    "item_id": 1683,
    "age": 100,
    "gender": 2,
    "occupation": 21,
    "genres": 19,
}
GENRES_PER_ITEM = 6


class _MovieLens(SingleTaskModelParams):
    """What the models on this data share."""

    def prepare_data(self, root: str = "") -> str:
        """Fetches MovieLens-100K on first use; returns its folder."""
        return str(data.prepare(root or None, progress=_say))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _input(batch_size: int) -> InputConfig:
    return InputConfig(
        start_date=FIRST_DAY,
        end_date=LAST_TRAINING_DAY,
        eval_start_date=FIRST_EVALUATION_DAY,
        eval_end_date=LAST_DAY,
        batch_size=batch_size,
        shuffle_window=100_000,
    )


def _lookups(
    columns: list[str], dim: int, stddev: float, vectors: UpdateRule, biases: UpdateRule
) -> tuple[tuple[TableConfig, ...], tuple[FeatureConfig, ...]]:
    """Returns for each column a table of vectors and one of biases, and their features."""
    tables, features = [], []
    for column in columns:
        length = GENRES_PER_ITEM if column == "genres" else 1
        for name, table_dim, initializer, rule in (
            (column, dim, Normal(stddev=stddev), vectors),
            (f"{column}_bias", 1, Constant(), biases),
        ):
            tables.append(
                TableConfig(
                    name=name,
                    vocab_size=VOCABULARY[column],
                    dim=table_dim,
                    initializer=initializer,
                    optimizer=rule,
                )
            )
            features.append(
                FeatureConfig(
                    name=name, column=column, table=name, combiner="mean", max_length=length
                )
            )
    return tuple(tables), tuple(features)


@RegisterSingleTaskModel
class DeepFM(_MovieLens):
    """MovieLens-100K: does a user rate a movie 4 or better (DeepFM)."""

    def task(self) -> TaskConfig:
        """Returns the config; about ten seconds of training on two cores."""
        columns = list(VOCABULARY)
        tables, features = _lookups(
            columns, 8, 0.01, Adagrad(learning_rate=0.05), Adagrad(learning_rate=0.05)
        )
        return TaskConfig(
            input=_input(batch_size=512),
            label=LabelConfig(column="rating", threshold=4.0),
            tables=tables,
            features=features,
            model=DeepFMConfig(
                vectors=tuple(columns),
                biases=tuple(f"{column}_bias" for column in columns),
                hidden=(64, 32),
                dropout=0.2,
            ),
            optimizer=Adam(learning_rate=0.001),
            embedding_l2=0.0,
            train=TrainConfig(epochs=3),
        )


@RegisterSingleTaskModel
class MatrixFactorization(_MovieLens):
    """MovieLens-100K: the rating itself, biased matrix factorization (RMSE)."""

    def task(self) -> TaskConfig:
        """Returns the config; the reference is Surprise's SVD with an RMSE of 0.934."""
        tables, features = _lookups(
            ["user_id", "item_id"],
            32,
            0.05,
            LazyAdam(learning_rate=0.005),
            LazyAdam(learning_rate=0.005),
        )
        return TaskConfig(
            input=_input(batch_size=512),
            label=LabelConfig(column="rating"),
            tables=tables,
            features=features,
            model=MatrixFactorizationConfig(
                user="user_id", item="item_id", user_bias="user_id_bias", item_bias="item_id_bias"
            ),
            loss="squared",
            embedding_l2=0.02,
            train=TrainConfig(epochs=20),
        )
