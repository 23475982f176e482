"""MovieLens-100K: click prediction with a DeepFM, rating prediction by matrix factorization.

    monolith-jax train movielens.DeepFM --model-dir DIR
    monolith-jax train movielens.MatrixFactorization --model-dir DIR

The data are fetched on first use (`movielens_data`). Both train on the ratings up to
`LAST_TRAINING_DAY` and evaluate on the days after it, four fifths of whose ratings come from users
who have none before. `examples/movielens.py` prints the quality numbers of the README, with the
baselines beside them. The settings were chosen by random search on a validation period within the
training days (DeepFM) and on other folds than the reported ones (MatrixFactorization).
"""

import sys

from monolith_jax.embedding import Constant, FeatureConfig, Normal, TableConfig
from monolith_jax.models import DeepFMConfig, MatrixFactorizationConfig
from monolith_jax.optimizers import Adam, LazyAdam, PolynomialDecay, UpdateRule
from monolith_jax.registry import RegisterSingleTaskModel, SingleTaskModelParams
from monolith_jax.task import InputConfig, LabelConfig, TaskConfig, TrainConfig
from monolith_jax.tasks import movielens_data as data

LAST_TRAINING_DAY, FIRST_EVALUATION_DAY = "19980329", "19980330"
BATCH_SIZE = 512
TRAINING_RATINGS = 86_709  # up to LAST_TRAINING_DAY
MEAN_RATING = 3.53


def _decay(initial: float, epochs: int) -> PolynomialDecay:
    """A learning rate that falls to 0, in a straight line, at the end of the last epoch."""
    steps = epochs * -(-TRAINING_RATINGS // BATCH_SIZE)
    return PolynomialDecay(initial=initial, decay_steps=steps, end=0.0)


class _MovieLens(SingleTaskModelParams):
    """What the models on this data share."""

    def prepare_data(self, root: str = "") -> str:
        """Fetches MovieLens-100K on first use; returns its folder."""
        return str(data.prepare(root or None, progress=_say))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _input() -> InputConfig:
    return InputConfig(
        start_date=data.FIRST_DAY,
        end_date=LAST_TRAINING_DAY,
        eval_start_date=FIRST_EVALUATION_DAY,
        eval_end_date=data.LAST_DAY,
        batch_size=BATCH_SIZE,
        shuffle_window=100_000,
    )


def _lookups(
    columns: tuple[str, ...], dim: int, stddev: float, rule: UpdateRule
) -> tuple[tuple[TableConfig, ...], tuple[FeatureConfig, ...]]:
    """Returns for each column a table of vectors and one of biases, and their features."""
    tables, features = [], []
    for column in columns:
        for name, table_dim, initializer in (
            (column, dim, Normal(stddev=stddev)),
            (f"{column}_bias", 1, Constant()),
        ):
            tables.append(
                TableConfig(
                    name=name,
                    vocab_size=data.VOCABULARY_SIZES[column],
                    dim=table_dim,
                    initializer=initializer,
                    optimizer=rule,
                )
            )
            features.append(
                FeatureConfig(
                    name=name,
                    column=column,
                    table=name,
                    combiner="mean",
                    max_length=data.MAX_GENRES if column == data.GENRES else 1,
                )
            )
    return tuple(tables), tuple(features)


@RegisterSingleTaskModel
class DeepFM(_MovieLens):
    """MovieLens-100K: does a user rate a movie 4 or better (DeepFM)."""

    def task(self) -> TaskConfig:
        """Returns the config; its learning rates are made for 8 epochs of these days."""
        epochs = 8
        columns = tuple(data.VOCABULARY_SIZES)
        rule = LazyAdam(learning_rate=_decay(0.004, epochs))
        tables, features = _lookups(columns, 8, 0.01, rule)
        return TaskConfig(
            input=_input(),
            label=LabelConfig(column=data.RATING, threshold=4.0),
            tables=tables,
            features=features,
            model=DeepFMConfig(
                vectors=columns,
                biases=tuple(f"{column}_bias" for column in columns),
                hidden=(32,),
            ),
            embedding_l2=0.03,
            optimizer=Adam(learning_rate=_decay(0.001, epochs)),
            weight_decay=0.003,
            train=TrainConfig(epochs=epochs),
        )


@RegisterSingleTaskModel
class MatrixFactorization(_MovieLens):
    """MovieLens-100K: the rating itself, biased matrix factorization (RMSE)."""

    def task(self) -> TaskConfig:
        """Returns the config; its learning rates are made for 10 epochs of these days."""
        epochs = 10
        rule = LazyAdam(learning_rate=_decay(0.004, epochs))
        tables, features = _lookups((data.USER_ID, data.ITEM_ID), 32, 0.02, rule)
        return TaskConfig(
            input=_input(),
            label=LabelConfig(column=data.RATING),
            tables=tables,
            features=features,
            model=MatrixFactorizationConfig(
                user=data.USER_ID,
                item=data.ITEM_ID,
                user_bias=f"{data.USER_ID}_bias",
                item_bias=f"{data.ITEM_ID}_bias",
                mean=MEAN_RATING,
            ),
            loss="squared",
            embedding_l2=0.08,
            train=TrainConfig(epochs=epochs),
        )
