"""Slots with slices and columns, as Monolith's users know them, made into tables and features.

A slot is a space of ids. Its slices are vectors that each of its ids has, every one a table with an
optimizer, an initializer and a learning rate of its own. Its columns are the features that hold
such ids; they share the slot's tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from monolith_jax.config import Config, field
from monolith_jax.embedding.config import (
    Constant,
    FeatureConfig,
    Initializer,
    TableConfig,
    Uniform,
)
from monolith_jax.embedding.vocabulary import Vocabulary
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import Adagrad, Ftrl, Schedule, UpdateRule


@dataclass(frozen=True, kw_only=True)
class FeatureSlice(Config):
    """One vector of each id of a slot; what is not given is the slot's."""

    dim: int = field(doc="Elements of the vector.")
    optimizer: UpdateRule | None = field(None, doc="Update rule; none: the slot's.")
    initializer: Initializer | None = field(None, doc="How rows start; none: the slot's.")
    learning_rate: float | Schedule | None = field(
        None, doc="Number or schedule that takes the place of the optimizer's; none: it stays."
    )
    dtype: Literal["float32", "bfloat16"] = field("float32", doc="As in `TableConfig`.")


@dataclass(frozen=True, kw_only=True)
class FeatureColumn(Config):
    """One column of a slot's ids; its fields are those of `FeatureConfig`."""

    name: str = field(doc="Name of the column; its lookups are named `name_INDEX`, by slice.")
    column: str = field("", doc="The column in the data; empty: the name.")
    weights: str = field("", doc="Column of the ids' weights.")
    combiner: Literal["sum", "mean", "sqrtn"] = field("sum", doc="How rows become one vector.")
    sequence: bool = field(False, doc="Keep the rows apart, with a mask.")
    max_length: int = field(1, doc="Most ids of one example.")
    too_long: Literal["error", "truncate"] = field("error", doc="What a longer list is.")
    required: bool = field(True, doc="Whether a record without the column is an error.")
    slices: tuple[int, ...] = field((), doc="Indices of the slices to look up; empty: all.")


@dataclass(frozen=True, kw_only=True)
class FeatureSlot(Config):
    """A space of ids, its slices and the columns that hold its ids; the defaults are Monolith's.

    With `has_bias`, slice 0 is a bias of dim 1 with a rule of its own, and `slices` count from 1;
    without, they count from 0.

    Example:
      >>> slot = FeatureSlot(
      ...     name="200",
      ...     has_bias=True,
      ...     slices=(FeatureSlice(dim=8),),
      ...     columns=(FeatureColumn(name="clicked", combiner="mean", max_length=20),),
      ... )
      >>> tables, features = slot_configs([slot], Vocabulary(counts={"200": 1682}))
      >>> [(t.name, t.dim, type(t.optimizer).__name__) for t in tables]
      [('table_200_0', 1, 'Ftrl'), ('table_200_1', 8, 'Adagrad')]
      >>> [(f.name, f.column, f.table) for f in features]
      [('clicked_0', 'clicked', 'table_200_0'), ('clicked_1', 'clicked', 'table_200_1')]
    """

    name: str = field(doc="The slot's id, as in the vocabulary.")
    slices: tuple[FeatureSlice, ...] = field((), doc="The vectors of an id, without the bias.")
    columns: tuple[FeatureColumn, ...] = field((), doc="The columns of ids; none: no tables.")
    has_bias: bool = field(False, doc="Whether slice 0 is a bias.")
    bias_optimizer: UpdateRule = field(Ftrl(learning_rate=0.01), doc="Update rule of the bias.")
    bias_initializer: Initializer = field(Constant(), doc="How biases start.")
    optimizer: UpdateRule = field(Adagrad(learning_rate=0.01), doc="Update rule of the slices.")
    initializer: Initializer = field(Uniform(scale=0.001), doc="How the slices' rows start.")
    negative: Literal["none", "error", "first"] = field("none", doc="What a negative id is.")
    out_of_range: Literal["error", "modulo", "zero"] = field(
        "error",
        doc="What an id beyond the vocabulary is; modulo in any case where its size is fixed or "
        "overridden.",
    )

    @property
    def all_slices(self) -> tuple[FeatureSlice, ...]:
        """The slices by their indices, the bias first, every field set."""
        bias = FeatureSlice(dim=1, optimizer=self.bias_optimizer, initializer=self.bias_initializer)
        filled = [
            one.replace(
                optimizer=one.optimizer or self.optimizer,
                initializer=one.initializer or self.initializer,
            )
            for one in self.slices
        ]
        return (bias, *filled) if self.has_bias else tuple(filled)


@dataclass(frozen=True, kw_only=True)
class QuotientRemainder(Config):
    """Slots of many ids get two small tables instead of a large one.

    A slot of n ids, n above the threshold, has `R = n // collision_rate + 1` rows for remainders
    and `ceil(n / R)` for quotients, at most `collision_rate`; there is no table of n rows. See
    `FeatureConfig.quotient_table`.
    """

    threshold: int = field(100_000_000, doc="The most ids of a slot that has one table.")
    collision_rate: int = field(4, doc="Ids that share a remainder, on average.")

    def __post_init__(self) -> None:
        if self.threshold < 0 or self.collision_rate < 1:
            raise ConfigError(
                "threshold must be at least 0 and collision_rate at least 1, got "
                f"{self.threshold} and {self.collision_rate}"
            )

    def sizes(self, ids: int) -> tuple[int, int] | None:
        """Returns the rows of remainders and quotients, or None for a slot with one table.

        Example:
          >>> hashing = QuotientRemainder(threshold=100, collision_rate=4)
          >>> hashing.sizes(1000), hashing.sizes(100)
          ((251, 4), None)
        """
        if ids <= self.threshold:
            return None
        remainders = ids // self.collision_rate + 1
        return remainders, -(-ids // remainders)


def slot_configs(
    slots: Sequence[FeatureSlot],
    vocabulary: Vocabulary,
    *,
    hashing: QuotientRemainder | None = None,
    gradient_multiplier: float = 1.0,
) -> tuple[tuple[TableConfig, ...], tuple[FeatureConfig, ...]]:
    """Returns the tables and features of some slots, for a `TaskConfig`.

    Tables are named as Monolith names them, `table_SLOT_INDEX`, with `_0` (remainders) and `_1`
    (quotients) behind it where a slot is hashed; features `COLUMN_INDEX`. Slices that no column
    looks up have no table.

    Args:
      slots: no two of one name.
      vocabulary: has a size for every slot that has columns.
      hashing: when to hash, and how; None: never.
      gradient_multiplier: of every table.

    Raises:
      ConfigError: two slots or columns of one name, a slot without a size, a slice that is not
        there.
    """
    _check_once("slot", [slot.name for slot in slots])
    _check_once("column", [column.name for slot in slots for column in slot.columns])
    tables: list[TableConfig] = []
    features: list[FeatureConfig] = []
    for slot in slots:
        if not slot.columns:
            continue
        ids = vocabulary.size(slot.name)
        split = hashing.sizes(ids) if hashing else None
        lookups = _lookups(slot)
        for index in sorted({index for _, index in lookups}):
            tables += _tables(slot, index, ids, split, gradient_multiplier)
        beyond = "modulo" if vocabulary.folds(slot.name) else slot.out_of_range
        features += [_feature(slot, column, i, split is not None, beyond) for column, i in lookups]
    return tuple(tables), tuple(features)


def _lookups(slot: FeatureSlot) -> list[tuple[FeatureColumn, int]]:
    """Returns each column with the indices of its slices."""
    count = len(slot.all_slices)
    found = []
    for column in slot.columns:
        for index in column.slices or range(count):
            if not 0 <= index < count:
                raise ConfigError(
                    f"column {column.name!r} looks up slice {index} of slot {slot.name!r}, which "
                    f"has {count}, counted from 0{', the bias' if slot.has_bias else ''}"
                )
            found.append((column, index))
    return found


def _tables(
    slot: FeatureSlot, index: int, ids: int, split: tuple[int, int] | None, multiplier: float
) -> list[TableConfig]:
    one = slot.all_slices[index]
    assert one.optimizer is not None
    assert one.initializer is not None
    rule = one.optimizer
    if one.learning_rate is not None:
        rule = rule.replace(learning_rate=one.learning_rate)
    name = f"table_{slot.name}_{index}"
    sizes = {name: ids} if split is None else {f"{name}_0": split[0], f"{name}_1": split[1]}
    return [
        TableConfig(
            name=table,
            vocab_size=size,
            dim=one.dim,
            optimizer=rule,
            initializer=one.initializer,
            dtype=one.dtype,
            gradient_multiplier=multiplier,
        )
        for table, size in sizes.items()
    ]


def _feature(
    slot: FeatureSlot,
    column: FeatureColumn,
    index: int,
    hashed: bool,
    beyond: Literal["error", "modulo", "zero"],
) -> FeatureConfig:
    table = f"table_{slot.name}_{index}"
    return FeatureConfig(
        name=f"{column.name}_{index}",
        column=column.column or column.name,
        weights=column.weights,
        table=f"{table}_0" if hashed else table,
        quotient_table=f"{table}_1" if hashed else "",
        combiner=column.combiner,
        sequence=column.sequence,
        max_length=column.max_length,
        too_long=column.too_long,
        required=column.required,
        negative=slot.negative,
        out_of_range=beyond,
    )


def _check_once(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two {kind}s are named {name!r}")
