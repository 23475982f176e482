"""What the tables and the lookups into them are: plain configs, no arrays."""

import math
from dataclasses import dataclass
from typing import Literal

from monolith_jax.config import Config, field
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import Adagrad, UpdateRule


class Initializer(Config):
    """How the rows of a table start; one of `Normal`, `Uniform`, `Constant`."""

    @classmethod
    def choices(cls) -> dict[str, type[Config]]:
        """Returns the initializers by the names that the command line takes."""
        return {"normal": Normal, "uniform": Uniform, "constant": Constant}


@dataclass(frozen=True, kw_only=True)
class Normal(Initializer):
    """Each element drawn from N(0, stddev^2)."""

    stddev: float = field(0.01, doc="Standard deviation.")

    def __post_init__(self) -> None:
        if not self.stddev >= 0:
            raise ConfigError(f"stddev must be at least 0, got {self.stddev}")


@dataclass(frozen=True, kw_only=True)
class Uniform(Initializer):
    """Each element drawn from [-scale, scale)."""

    scale: float = field(0.05, doc="Half the width of the interval around 0.")

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ConfigError(f"scale must be at least 0, got {self.scale}")


@dataclass(frozen=True, kw_only=True)
class Constant(Initializer):
    """Each element the same; zero, the default, is the usual start of bias tables."""

    value: float = field(0.0, doc="The value of every element.")


@dataclass(frozen=True, kw_only=True)
class TableConfig(Config):
    """One embedding table, `[vocab_size, dim]`, with the rule that updates its rows.

    Tables of equal `dim`, `optimizer` and `dtype` are kept and updated as one array. A table costs
    `vocab_size * dim` elements (rows widened to a divisor or a multiple of 128 lanes) for its
    values, and as many float32 for each slot of its rule, or one number a row (row-wise Adagrad).

    With `dtype="bfloat16"` rows are read as float32, updated in float32 and rounded at random to
    one of the two neighbours, with the probabilities that make the expected value the exact one;
    rounding to the nearest would lose every update below 1/256 of the value. The random bits are a
    function of the engine's seed, the step, the row and the element, so that a resumed run draws
    the same ones, on any number of devices. Slots stay float32. The CPU backend of jax 0.10 (Python
    3.11) has no bfloat16 scatter and widens such a table at each step; jax 0.12 and TPUs do not.

    With `sharding="mod"` (TF's `partition_strategy`, but by lines of 128 lanes) frequent ids that
    lie side by side, as ids sorted by frequency do, land on different devices. With "div" a device
    owns a range of ids, which suits who reads or replaces ranges; frequent neighbours then share an
    owner, and what it sends beyond the others' share takes a detour. From equal tables both compute
    equal results, to the last bit; the first values differ, which are drawn where a row lies.

    Example:
      >>> TableConfig(name="user", vocab_size=943, dim=16).initializer
      Normal(stddev=0.01)
    """

    name: str = field(doc="The table's name, unique in a model.")
    vocab_size: int = field(doc="Number of rows; valid ids are 0 to vocab_size - 1.")
    dim: int = field(doc="Elements of a row.")
    initializer: Initializer = field(Normal(), doc="How the rows start.")
    optimizer: UpdateRule = field(
        Adagrad(learning_rate=0.05), doc="Update rule of the rows that a batch touches."
    )
    dtype: Literal["float32", "bfloat16"] = field(
        "float32",
        doc="How values are kept; bfloat16 takes half the memory and is rounded stochastically.",
    )
    sharding: Literal["mod", "div"] = field(
        "mod",
        doc="Which device owns a row: mod deals lines of 128 lanes out in turn, div cuts the table "
        "into blocks of consecutive rows. A checkpoint of either is read as the other.",
        restart="free",
    )
    gradient_multiplier: float = field(
        1.0,
        doc="The table's gradient is multiplied by this, before it is measured, clipped and used.",
    )

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"table {self.name!r}: {name} must be at least 1, got {getattr(self, name)}"
                )
        if not math.isfinite(self.gradient_multiplier):
            raise ConfigError(
                f"table {self.name!r}: gradient_multiplier must be finite, got "
                f"{self.gradient_multiplier}"
            )


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(Config):
    """One lookup: ids of a column into rows of a table, combined to one vector per example.

    With the ids `i_1 .. i_n` of an example, their weights `w_k` (1 without a `weights` column) and
    rows `E`, the vector `[dim]` is

        sum     sum_k w_k E[i_k]
        mean    sum_k w_k E[i_k] / sum_k w_k
        sqrtn   sum_k w_k E[i_k] / sqrt(sum_k w_k^2)

    and zero where there is no id; these are the combiners of TF's `embedding_lookup_sparse`. What
    is no id contributes nothing and touches no row: an id of weight 0, and by the rules of
    `negative` and `out_of_range` what lies outside the table.

    A `sequence` is not combined: `[max_length, dim]`, row k being `w_k E[i_k]`, zero where there is
    no id, and beside it under `mask_name` a bool `[max_length]`, true where there is one.

    With a `quotient_table` of Q rows beside the table's R (quotient-remainder hashing), the row of
    id i is `E[i % R] + E_Q[i // R]`: ids 0 to R * Q - 1, each with a sum of its own, in R + Q rows.

    Several features may read one column, and several may share one table.

    Example:
      >>> FeatureConfig(name="genres", table="genre", combiner="mean", max_length=6).combiner
      'mean'

    References:
      Shi et al. (2020), Compositional Embeddings Using Complementary Partitions (the sum of two).
    """

    name: str = field(doc="Name of the result, unique in a model.")
    column: str = field("", doc="The column of ids; empty: the feature's name.")
    weights: str = field(
        "", doc="Column of the ids' weights, float, one an id and none negative; empty: all are 1."
    )
    table: str = field(doc="The table that is looked up.")
    quotient_table: str = field(
        "", doc="Second table, of equal dim, for id // rows of the first; empty: no such hashing."
    )
    combiner: Literal["sum", "mean", "sqrtn"] = field(
        "sum", doc="How the rows of one example become one vector."
    )
    sequence: bool = field(False, doc="Keep the rows of an example apart, with a mask.")
    max_length: int = field(1, doc="Most ids of one example.")
    too_long: Literal["error", "truncate"] = field(
        "error", doc="What an example of more than max_length ids is; truncate keeps the first."
    )
    out_of_range: Literal["error", "modulo", "zero"] = field(
        "error",
        doc="What an id of vocab_size or more is: an error, the row id % vocab_size, or no id.",
    )
    negative: Literal["none", "error", "first"] = field(
        "none",
        doc="What a negative id is: no id, an error, or the row 0 (as in Monolith, which has no "
        "other way to say unknown).",
    )
    required: bool = field(
        True,
        doc="Whether a record without the column is an error; false: it has no ids (what TF's "
        "VarLenFeature does, which cannot tell a misspelt name from an empty list).",
    )

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ConfigError(
                f"feature {self.name!r}: max_length must be at least 1, got {self.max_length}"
            )

    @property
    def source(self) -> str:
        """The column that the ids come from."""
        return self.column or self.name

    @property
    def mask_name(self) -> str:
        """The name of a sequence's mask among the embeddings: `name/mask`."""
        return f"{self.name}/mask"
