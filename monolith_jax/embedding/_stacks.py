"""Tables of like width and rule, kept as one array, and the features that look them up."""

from collections.abc import Sequence
from dataclasses import dataclass

from monolith_jax.embedding._layout import Layout
from monolith_jax.embedding._parts import Part, parts_of
from monolith_jax.embedding.config import FeatureConfig, TableConfig
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import UpdateRule


@dataclass(frozen=True)
class Stack:
    """Tables of equal `dim`, `optimizer`, `dtype` and `sharding` in one array's rows.

    Attributes:
      name: the array's name in the state and in checkpoints.
      tables: the tables, in the order of their rows.
      offsets: the logical row at which each table starts; a multiple of `layout.pack`. Rows of
        one table follow each other; where tables are cut into blocks there are gaps between them.
      features: the lookups into these tables, in the model's order; a feature is one, or two.
      layout: the array's layout.
    """

    name: str
    tables: tuple[TableConfig, ...]
    offsets: tuple[int, ...]
    features: tuple[Part, ...]
    layout: Layout

    @property
    def rule(self) -> UpdateRule:
        """The update rule of every table in the stack."""
        return self.tables[0].optimizer

    @property
    def dtype(self) -> str:
        """How the values of every table in the stack are kept."""
        return self.tables[0].dtype

    @property
    def weighted(self) -> bool:
        """Whether any of the features has weights."""
        return any(part.feature.weights for part in self.features)

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
    known = {table.name: table for table in tables}
    parts = [part for feature in features for part in parts_of(feature, known)]
    masks = [feature.mask_name for feature in features if feature.sequence]
    _check_names("feature", [part.name for part in parts] + masks)
    groups: dict[tuple[int, UpdateRule, str, str], list[TableConfig]] = {}
    for table in tables:
        key = (table.dim, table.optimizer, table.dtype, table.sharding)
        groups.setdefault(key, []).append(table)
    stacks: dict[str, Stack] = {}
    for (dim, rule, dtype, sharding), members in groups.items():
        base = f"dim{dim}_{type(rule).__name__.lower()}"
        base += "" if dtype == "float32" else f"_{dtype}"
        base += "" if sharding == "mod" else f"_{sharding}"
        taken = sum(1 for name in stacks if name == base or name.startswith(f"{base}_"))
        name = f"{base}_{taken + 1}" if taken else base
        stacks[name] = _stack(name, dim, tuple(members), parts, shards)
    return tuple(stacks.values())


def _stack(
    name: str,
    dim: int,
    tables: tuple[TableConfig, ...],
    parts: Sequence[Part],
    shards: int,
) -> Stack:
    pack = Layout(1, dim, shards).pack
    offsets, blocks, row = [], [], 0
    for table in tables:
        offsets.append(row)
        lines = -(-table.vocab_size // pack)
        if table.sharding == "div":
            blocks.append(-(-lines // shards))
            lines = blocks[-1] * shards
        row += lines * pack
    names = {table.name for table in tables}
    mine = tuple(part for part in parts if part.table in names)
    return Stack(name, tables, tuple(offsets), mine, Layout(row, dim, shards, tuple(blocks)))


def check_rows(stacks: Sequence[Stack], devices: int) -> None:
    """Raises a ConfigError where a device would have more rows than int32 can count."""
    for stack in stacks:
        # Padding counts on beyond the block, up to twice its rows, and must stay within int32.
        if 2 * stack.layout.physical_rows // devices >= 2**31:
            raise ConfigError(
                f"tables {', '.join(table.name for table in stack.tables)}: "
                f"{stack.layout.physical_rows} rows on {devices} devices; at most 2**30 rows per "
                "device are possible"
            )


def _check_names(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if not name:
            raise ConfigError(f"a {kind} needs a name")
        if names.count(name) > 1:
            raise ConfigError(f"two {kind}s are named {name!r}")
