"""What a folder of assets holds, in words and as JSON."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TableReport:
    """One table.

    Attributes:
      name: the table's.
      kind: "single" or "multi".
      files: the data files that hold entries of it.
      bytes: of those files; of a multi table all of its tables'.
      entries: how many ids.
      dim: numbers of an embedding; None without entries.
      optimizers: as in "adagrad[1] sgd[3]", with the numbers of each slice.
    """

    name: str
    kind: str
    files: int
    bytes: int
    entries: int
    dim: int | None
    optimizers: str


@dataclass(frozen=True)
class Report:
    """A folder of assets; `str()` is a table for people.

    Example:
      >>> print(Report("m.assets", (TableReport("user", "multi", 4, 900, 3, 2, "sgd[2]"),), (), ()))
      m.assets: 1 table, 3 entries
      table  kind   entries  dim  optimizers  files  bytes
      user   multi  3        2    sgd[2]      4      900
    """

    folder: str
    tables: tuple[TableReport, ...]
    hash_filters: tuple[str, ...]
    ignored: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain dicts and lists."""
        return asdict(self)

    def __str__(self) -> str:
        head = ("table", "kind", "entries", "dim", "optimizers", "files", "bytes")
        cells = [head]
        for row in self.tables:
            dim = "-" if row.dim is None else f"{row.dim}"
            numbers = f"{row.files}", f"{row.bytes:,}"
            cells.append((row.name, row.kind, f"{row.entries:,}", dim, row.optimizers, *numbers))
        widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
        total = sum(row.entries for row in self.tables)
        many = "" if len(self.tables) == 1 else "s"
        lines = [f"{self.folder}: {len(self.tables)} table{many}, {total:,} entries"]
        for line in cells:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
        for name in self.hash_filters:
            lines.append(f"{name}: a filter of rare ids, no embeddings; not read")
        lines += [f"{path}: belongs to no table; not read" for path in self.ignored]
        return "\n".join(lines)
