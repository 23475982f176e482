"""How many rows each slot's tables have: counts from a file, with exceptions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from monolith_jax import storage
from monolith_jax.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Vocabulary sizes by slot.

    The size of a slot is `fixed` if that is set, else its entry in `overrides`, else its entry in
    `counts`; `offset` is added in every case. Where a size is fixed or overridden, data may hold
    ids beyond it: `folds` says so, and the features of such a slot take ids modulo the size.

    Attributes:
      counts: sizes by slot, as from `read_counts`.
      overrides: sizes that count more than those.
      offset: added to every size.
      fixed: one size for every slot, known or not; 0: none.

    Raises:
      ConfigError: a size below 1; names the slot.

    Example:
      >>> sizes = Vocabulary(counts={"1": 50, "2": 9}, overrides={"2": 4}, offset=1)
      >>> sizes.size("1"), sizes.size("2"), sizes.folds("1"), sizes.folds("2")
      (51, 5, False, True)

    References:
      Monolith's `vocab_file_path`, `custom_vocab_size_mapping`, `vocab_size_offset` and
      `vocab_size_per_slot`.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    overrides: Mapping[str, int] = field(default_factory=dict)
    offset: int = 0
    fixed: int = 0

    def __post_init__(self) -> None:
        if self.fixed < 0:
            raise ConfigError(f"fixed must be at least 0, got {self.fixed}")
        for slot in {**self.counts, **self.overrides}:
            self.size(slot)

    def size(self, slot: str) -> int:
        """Returns the number of ids of a slot.

        Raises:
          ConfigError: the slot has no size, or one below 1.
        """
        if self.fixed:
            size = self.fixed
        elif slot in self.overrides:
            size = self.overrides[slot]
        elif slot in self.counts:
            size = self.counts[slot]
        else:
            known = {**self.counts, **self.overrides}
            raise ConfigError(f"slot {slot!r} has no vocabulary size: {did_you_mean(slot, known)}")
        if size + self.offset < 1:
            raise ConfigError(
                f"slot {slot!r}: vocabulary size {size} with offset {self.offset} is below 1"
            )
        return size + self.offset

    def folds(self, slot: str) -> bool:
        """Returns whether ids of a slot are taken modulo its size."""
        return bool(self.fixed) or slot in self.overrides


def read_counts(path: str) -> dict[str, int]:
    r"""Returns the sizes in a file of `slot<TAB>count` lines, local or gs://.

    Empty lines are skipped, and so is a first line whose count is no number (a heading).

    Raises:
      DataError: another line is not of that form, or names a slot again; names file and line.
      StorageError: the file cannot be read.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
      ...     _ = file.write("slot_id\tcount\n1\t943\n200\t1682\n")
      ...     file.flush()
      ...     read_counts(file.name)
      {'1': 943, '200': 1682}
    """
    try:
        text = storage.read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        slot, tab, count = line.partition("\t")
        slot, count = slot.strip(), count.strip()
        if not (slot and tab and count.isascii() and count.isdigit()):
            if number == 1 and slot and tab and "\t" not in count:
                continue
            raise DataError(f"{path}, line {number}: expected slot<TAB>count, got {line[:80]!r}")
        if slot in counts:
            raise DataError(f"{path}, line {number}: slot {slot!r} a second time")
        counts[slot] = int(count)
    return counts
