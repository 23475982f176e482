"""The lookups behind a feature: one, or two where quotients and remainders have tables each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from monolith_jax.embedding.config import FeatureConfig, TableConfig
from monolith_jax.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Part:
    """One lookup of a feature into one table; the row of an id is `id // divisor % modulus`.

    Attributes:
      name: of the part's vectors: the feature's, with `/quotient` behind it in the second part.
      feature: whose lookup it is.
      table: the table's name.
      ids: valid ids are 0 to ids - 1, over both tables together.
      divisor: 1, or the rows of the remainders' table where the quotient is looked up.
      modulus: rows of the remainders' table; 0: the quotient is the row.
      multiplier: of the gradient that goes to the table.
    """

    name: str
    feature: FeatureConfig
    table: str
    ids: int
    divisor: int = 1
    modulus: int = 0
    multiplier: float = 1.0

    @property
    def hashed(self) -> bool:
        """Whether ids are split into quotient and remainder."""
        return self.divisor > 1 or self.modulus > 0

    @property
    def max_length(self) -> int:
        """Most ids of one example."""
        return self.feature.max_length


def parts_of(feature: FeatureConfig, tables: Mapping[str, TableConfig]) -> tuple[Part, ...]:
    """Returns the lookups of a feature.

    Raises:
      ConfigError: a table that is not there, or two tables that do not fit.
    """
    table = _table(feature, feature.table, tables)
    if not feature.quotient_table:
        multiplier = table.gradient_multiplier
        return (Part(feature.name, feature, table.name, table.vocab_size, multiplier=multiplier),)
    quotients = _table(feature, feature.quotient_table, tables)
    if quotients.dim != table.dim or quotients.name == table.name:
        raise ConfigError(
            f"feature {feature.name!r}: quotient_table {quotients.name!r} (dim {quotients.dim}) "
            f"must be another table than {table.name!r} (dim {table.dim}), of the same dim"
        )
    size = table.vocab_size
    ids = size * quotients.vocab_size
    return (
        Part(
            feature.name,
            feature,
            table.name,
            ids,
            modulus=size,
            multiplier=table.gradient_multiplier,
        ),
        Part(
            f"{feature.name}/quotient",
            feature,
            quotients.name,
            ids,
            divisor=size,
            multiplier=quotients.gradient_multiplier,
        ),
    )


def vector_shapes(
    features: Sequence[FeatureConfig], tables: Sequence[TableConfig], batch_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns what a model gets of `batch_size` examples: vectors, sequences and masks, by name.

    Example:
      >>> table = TableConfig(name="t", vocab_size=9, dim=4)
      >>> history = FeatureConfig(name="h", table="t", sequence=True, max_length=3)
      >>> {name: x.shape for name, x in vector_shapes([history], [table], 2).items()}
      {'h': (2, 3, 4), 'h/mask': (2, 3)}
    """
    dims = {table.name: table.dim for table in tables}
    shapes: dict[str, jax.ShapeDtypeStruct] = {}
    for feature in features:
        dim = dims[feature.table]
        if feature.sequence:
            length = feature.max_length
            shape = (batch_size, length, dim)
            shapes[feature.name] = jax.ShapeDtypeStruct(shape, jnp.float32)
            shapes[feature.mask_name] = jax.ShapeDtypeStruct((batch_size, length), jnp.bool_)
        else:
            shapes[feature.name] = jax.ShapeDtypeStruct((batch_size, dim), jnp.float32)
    return shapes


def assemble(
    found: Mapping[str, jax.Array], features: Sequence[FeatureConfig]
) -> dict[str, jax.Array]:
    """Returns the features' vectors and masks in the features' order, from those of their parts."""
    vectors: dict[str, jax.Array] = {}
    for feature in features:
        vector = found[feature.name]
        if feature.quotient_table:
            vector = vector + found[f"{feature.name}/quotient"]
        vectors[feature.name] = vector
        if feature.sequence:
            vectors[feature.mask_name] = found[feature.mask_name]
    return vectors


def _table(feature: FeatureConfig, name: str, tables: Mapping[str, TableConfig]) -> TableConfig:
    if name not in tables:
        raise ConfigError(
            f"feature {feature.name!r} looks up table {name!r}, which is not there: "
            f"{did_you_mean(name, tables)}"
        )
    return tables[name]
