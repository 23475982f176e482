"""What a registered model is: one config that says everything a run needs.

A model class derives from `SingleTaskModelParams` and returns its config from `task()`:

    @registry.RegisterSingleTaskModel
    class DeepFM(SingleTaskModelParams):
        "One line that `monolith-jax models` shows."

        def task(self) -> TaskConfig:
            return TaskConfig(...)

`SingleTaskModelParams` itself lives in `monolith_jax.registry`, which needs no jax.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from monolith_jax.config import Config, field
from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.errors import ConfigError, did_you_mean
from monolith_jax.input import Column
from monolith_jax.optimizers import Adam, UpdateRule
from monolith_jax.registry import SingleTaskModelParams as SingleTaskModelParams


def _positive(config: Config, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be at least 1, got {getattr(config, name)}")


@dataclass(frozen=True, kw_only=True)
class InputConfig(Config):
    """Which examples a run sees, and in which order."""

    root: str = field(
        "",
        doc="Folder of the dated data, ROOT/YYYYMMDD/.../part*, local or gs://. Empty: the data "
        "that comes with the model, fetched on first use.",
        restart="free",
    )
    start_date: str = field(
        "",
        doc="First day to train on, YYYYMMDD, inclusive. A run that is done with its days goes on "
        "with later ones.",
        restart="free",
    )
    end_date: str = field("", doc="Last day to train on, YYYYMMDD, inclusive.", restart="free")
    eval_start_date: str = field(
        "", doc="First day to evaluate on. Empty: no evaluation.", restart="free"
    )
    eval_end_date: str = field("", doc="Last day to evaluate on, inclusive.", restart="free")
    batch_size: int = field(512, doc="Examples per step, over all devices together.")
    seed: int = field(0, doc="Seed of the order of the examples.")
    shuffle_window: int = field(
        0,
        doc="Examples are shuffled within consecutive windows of this many, in the order of time; "
        "0 keeps the order, a window of all examples or more is a full shuffle.",
    )
    skip_damaged: bool = field(
        False, doc="Count damaged records and go on, instead of stopping at the first."
    )
    buffer: int = field(
        2,
        doc="Batches prepared ahead of the step, at least one for each worker. So many take up "
        "memory, on the host and on the devices.",
        restart="free",
    )
    threads: int = field(2, doc="Threads that decode files ahead of the batches.", restart="free")
    workers: int = field(
        0,
        doc="Threads that prepare batches, each one of its own: its examples out of the decoded "
        "files, its ids deduplicated. The numbers are the same whatever the workers. 0: one for "
        "every four cores that the process may use, 1 to 16.",
        restart="free",
    )

    def __post_init__(self) -> None:
        _positive(self, "batch_size", "buffer", "threads")
        if self.workers < 0:
            raise ConfigError(f"workers must not be negative, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class LabelConfig(Config):
    """What the model predicts."""

    column: str = field("label", doc="The column that holds the label.")
    dtype: Literal["float32", "int64"] = field("float32", doc="The column's type in the data.")
    threshold: float | None = field(
        None, doc="The label is 1 where the column is at least this, else 0; none: its value."
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """How long to train, and what happens along the way."""

    epochs: int = field(1, doc="Times the training days are gone through.", restart="free")
    seed: int = field(0, doc="Seed of the initial weights and of dropout.")
    devices: int = field(
        0,
        doc="Devices to use; 0: all that jax finds. Results are equal up to the rounding of sums.",
        restart="free",
    )
    log_every: int = field(
        50, doc="Steps between two lines of training metrics; each covers the steps in between."
    )
    eval_every: int = field(
        0, doc="Steps between two evaluations; 0: at the end of each epoch.", restart="free"
    )
    checkpoint_every: int = field(500, doc="Steps between two checkpoints.", restart="free")
    keep_checkpoints: int = field(3, doc="Newest checkpoints to keep.", restart="free")
    clip_norm: float = field(
        0.0,
        doc="Scale all gradients of a step, dense and tables together, down to this joint norm; "
        "0: never. Gradients of the loss: weight_decay comes on top.",
    )
    gradient_norms: bool = field(
        False, doc="Also log the gradients' norms, of all, of the dense part and of each table."
    )
    engine: Literal["auto", "xla", "sparsecore"] = field(
        "auto",
        doc="What keeps the tables: xla, on every device; sparsecore, on v5p, v6e and TPU7x; auto: "
        "sparsecore where it can. Checkpoints of either are read by the other.",
        restart="free",
    )

    def __post_init__(self) -> None:
        _positive(self, "epochs", "log_every", "checkpoint_every", "keep_checkpoints")
        if not (math.isfinite(self.clip_norm) and self.clip_norm >= 0.0):
            raise ConfigError(f"clip_norm must be 0 or above and finite, got {self.clip_norm}")


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """A model with its data, tables, optimizers and schedule: all that `train` needs.

    The loss of a batch is `sum_i w_i (loss_i + embedding_l2 * sum_f |e_if|^2) / sum_i w_i` over
    its examples i with weights w (0 for the padding of the tail), e_if being example i's combined
    embedding of feature f.
    """

    input: InputConfig = field(InputConfig(), doc="Which examples, in which order.")
    label: LabelConfig = field(LabelConfig(), doc="What is predicted.")
    tables: tuple[TableConfig, ...] = field(doc="The embedding tables.")
    features: tuple[FeatureConfig, ...] = field(doc="The lookups into the tables.")
    dense: tuple[str, ...] = field((), doc="Float columns that go to the model as they are.")
    model: Any = field(doc="Config of the Flax module; its instantiate() gives the module.")
    loss: Literal["logloss", "squared"] = field(
        "logloss", doc="logloss: logits against labels in [0, 1]; squared: values against labels."
    )
    embedding_l2: float = field(0.0, doc="Weight of the squared norms of an example's embeddings.")
    optimizer: UpdateRule = field(Adam(), doc="Update rule of the dense parameters.")
    weight_decay: float = field(
        0.0, doc="Added to the dense gradients, times the parameters (L2, not decoupled)."
    )
    train: TrainConfig = field(TrainConfig(), doc="How long, and what happens along the way.")

    def __post_init__(self) -> None:
        tables = {table.name for table in self.tables}
        for feature in self.features:
            for table in filter(None, (feature.table, feature.quotient_table)):
                if table not in tables:
                    raise ConfigError(
                        f"feature {feature.name!r} looks up table {table!r}, which is not there: "
                        f"{did_you_mean(table, tables)}"
                    )

    def instantiate(self) -> Any:
        """Returns the Flax module; `module(embeddings, dense) -> [batch]` logits or values."""
        return self.model.instantiate() if hasattr(self.model, "instantiate") else self.model

    def schema(self) -> tuple[Column, ...]:
        """Returns the columns to read: the features' ids and weights, dense values, the label.

        Raises:
          ConfigError: if one column is declared in two ways.
        """
        columns: dict[str, Column] = {}
        wanted = [Column(self.label.column, self.label.dtype)]
        wanted += [Column(name, "float32") for name in self.dense]
        for feature in self.features:
            wanted.append(_ids(feature))
            if feature.weights:
                wanted.append(_weights(feature))
        for column in wanted:
            if columns.setdefault(column.name, column) != column:
                raise ConfigError(
                    f"column {column.name!r} is declared as {columns[column.name]} and as {column}"
                )
        return tuple(columns.values())


def _ids(feature: FeatureConfig) -> Column:
    """Returns the column of a feature's ids; -1 and the empty list are no id."""
    if feature.max_length == 1:
        return Column(feature.source, "int64", 1, default=None if feature.required else -1)
    return Column(feature.source, "int64", None, default=None if feature.required else ())


def _weights(feature: FeatureConfig) -> Column:
    """Returns the column of the weights of a feature's ids."""
    if feature.max_length == 1:
        return Column(feature.weights, "float32", 1, default=None if feature.required else 1.0)
    return Column(feature.weights, "float32", None, default=None if feature.required else ())
