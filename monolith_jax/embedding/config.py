"""What the tables and the lookups into them are: plain configs, no arrays."""

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
    """One embedding table, `[vocab_size, dim]` float32, with the rule that updates its rows.

    Tables of equal `dim` and equal `optimizer` are kept and updated as one array.

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

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"table {self.name!r}: {name} must be at least 1, got {getattr(self, name)}"
                )


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(Config):
    """One lookup: ids of a column into rows of a table, combined to one vector per example.

    With ids `i_1 .. i_n` of an example (negative ids left out) and rows `E`, the vector is
    `sum_k E[i_k]`, divided by `n` for "mean" and by `sqrt(n)` for "sqrtn"; zero if `n` is 0.
    Several features may read one column, and several may share one table.

    Example:
      >>> FeatureConfig(name="genres", table="genre", combiner="mean", max_length=6).combiner
      'mean'
    """

    name: str = field(doc="Name of the result, unique in a model.")
    column: str = field("", doc="The column of ids; empty: the feature's name.")
    table: str = field(doc="The table that is looked up.")
    combiner: Literal["sum", "mean", "sqrtn"] = field(
        "sum", doc="How the rows of one example become one vector."
    )
    max_length: int = field(1, doc="Most ids of one example.")
    too_long: Literal["error", "truncate"] = field(
        "error", doc="What an example of more than max_length ids is; truncate keeps the first."
    )
    out_of_range: Literal["error", "modulo", "zero"] = field(
        "error",
        doc="What an id of vocab_size or more is: an error, the row id % vocab_size, or no id. "
        "A negative id is no id in every case: it contributes nothing.",
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
