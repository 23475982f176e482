"""Tables of like width and rule, kept as one array, and the features that look them up."""

from collections.abc import Sequence
from dataclasses import dataclass

from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding.config import FeatureConfig, TableConfig
from monolith_jax.errors import ConfigError, did_you_mean
from monolith_jax.optimizers import UpdateRule


@dataclass(frozen=True)
class Stack:
    """Tables of equal `dim` and `optimizer`, one after the other in the rows of one array.

    Attributes:
      name: the array's name in the state and in checkpoints.
      tables: the tables, in the order of their rows.
      offsets: the logical row at which each table starts; a multiple of `layout.pack`.
      features: the features that look these tables up, in the model's order.
      layout: the array's layout.
    """

    name: str
    tables: tuple[TableConfig, ...]
    offsets: tuple[int, ...]
    features: tuple[FeatureConfig, ...]
    layout: Layout

    @property
    def rule(self) -> UpdateRule:
        """The update rule of every table in the stack."""
        return self.tables[0].optimizer

    @property
    def ids_per_example(self) -> int:
        """Ids that one example has at most, over all features."""
        return sum(feature.max_length for feature in self.features)

    def table(self, name: str) -> tuple[TableConfig, int]:
        """Returns the table of that name and the logical row where it starts."""
        for table, offset in zip(self.tables, self.offsets, strict=True):
            if table.name == name:
                return table, offset
        raise KeyError(name)


def build_stacks(
    tables: Sequence[TableConfig], features: Sequence[FeatureConfig], shards: int
) -> tuple[Stack, ...]:
    """Groups tables into stacks, in the order of their first tables.

    Raises:
      ConfigError: a name twice, or a feature of a table that is not there.
    """
    _check_names("table", [table.name for table in tables])
    _check_names("feature", [feature.name for feature in features])
    known = {table.name for table in tables}
    for feature in features:
        if feature.table not in known:
            raise ConfigError(
                f"feature {feature.name!r} looks up table {feature.table!r}, which is not there: "
                f"{did_you_mean(feature.table, known)}"
            )
    groups: dict[tuple[int, UpdateRule], list[TableConfig]] = {}
    for table in tables:
        groups.setdefault((table.dim, table.optimizer), []).append(table)
    stacks: dict[str, Stack] = {}
    for (dim, rule), members in groups.items():
        base = f"dim{dim}_{type(rule).__name__.lower()}"
        taken = sum(1 for name in stacks if name == base or name.startswith(f"{base}_"))
        name = f"{base}_{taken + 1}" if taken else base
        stacks[name] = _stack(name, dim, tuple(members), features, shards)
    return tuple(stacks.values())


def _stack(
    name: str,
    dim: int,
    tables: tuple[TableConfig, ...],
    features: Sequence[FeatureConfig],
    shards: int,
) -> Stack:
    pack = Layout(1, dim, shards).pack
    offsets, row = [], 0
    for table in tables:
        offsets.append(row)
        row += -(-table.vocab_size // pack) * pack
    names = {table.name for table in tables}
    mine = tuple(feature for feature in features if feature.table in names)
    return Stack(name, tables, tuple(offsets), mine, Layout(row, dim, shards))


def _check_names(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if not name:
            raise ConfigError(f"a {kind} needs a name")
        if names.count(name) > 1:
            raise ConfigError(f"two {kind}s are named {name!r}")
