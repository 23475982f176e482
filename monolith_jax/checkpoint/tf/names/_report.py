"""What a comparison of our variables with a checkpoint found, as text and as JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from monolith_jax.checkpoint.tf.names._entries import Entry
from monolith_jax.errors import CheckpointError

_MOST_NAMED = 3


@dataclass(frozen=True)
class Found:
    """An array of ours that the checkpoint has, under `tf` (its average's name, if that counts)."""

    entry: Entry
    tf: str


@dataclass(frozen=True)
class Missing:
    """An array of ours that it has not.

    Attributes:
      entry: the array.
      near: names in the checkpoint that may be meant.
      follows: it is a slot of a variable that is missing too.
    """

    entry: Entry
    near: tuple[str, ...]
    follows: bool


@dataclass(frozen=True)
class Conflict:
    """An array that the checkpoint has in another shape or dtype; `what` says which."""

    entry: Entry
    tf: str
    what: str


@dataclass(frozen=True)
class Left:
    """A variable of the checkpoint that nothing of ours is called; `why` says what it seems."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    why: str

    @property
    def ignored(self) -> bool:
        """Whether the names file leaves it out on purpose."""
        return self.why == "ignored"


@dataclass(frozen=True)
class Report:
    """What matched, what did not, what disagrees.

    Attributes:
      found: ours that the checkpoint has.
      missing: ours that it has not.
      conflicts: ours that it has in another shape or dtype.
      left: the checkpoint's that are not ours.
      unused_rules: expressions of the names file that matched no variable.
    """

    found: tuple[Found, ...]
    missing: tuple[Missing, ...]
    conflicts: tuple[Conflict, ...]
    left: tuple[Left, ...]
    unused_rules: tuple[str, ...] = ()

    def check(self, prefix: str, *, partial: bool = False) -> None:
        """Raises unless all of ours is there, or may be left as it starts.

        Args:
          prefix: of the checkpoint, for the message.
          partial: whether arrays may be missing; disagreements are errors all the same.

        Raises:
          CheckpointError: names the first few, and what may be meant.
        """
        problems = [f"{c.tf} has {c.what}" for c in self.conflicts]
        if not partial:
            problems += [_missing_text(m) for m in self.missing if not m.follows]
        if not problems:
            return
        more = len(problems) - _MOST_NAMED
        tail = f"; and {more} more" if more > 0 else ""
        raise CheckpointError(f"{prefix}: {'; '.join(problems[:_MOST_NAMED])}{tail}")

    def lines(self) -> Iterator[str]:
        """Yields the report as lines of text: problems first, then the table of what matched."""
        for conflict in self.conflicts:
            yield f"DISAGREES  {conflict.entry.ours}  <-  {conflict.tf}: {conflict.what}"
        for missing in self.missing:
            yield f"MISSING    {_missing_text(missing)}"
        for rule in self.unused_rules:
            yield f"UNUSED     rule ours = {rule!r} matches no variable"
        for left in self.left:
            if not left.ignored:
                why = f"  ({left.why})" if left.why else ""
                yield f"LEFT OVER  {left.name}  {left.dtype}{list(left.shape)}{why}"
        width = max((len(f.entry.ours) for f in self.found), default=0)
        for found in self.found:
            shape = list(found.entry.shape)
            yield f"matched    {found.entry.ours:{width}}  <-  {found.tf}  {shape}"
        ignored = sum(left.ignored for left in self.left)
        yield (
            f"{len(self.found)} matched, {len(self.missing)} missing, {len(self.conflicts)} "
            f"disagree, {len(self.left) - ignored} left over, {ignored} ignored"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {
            "matched": [
                {"ours": f.entry.ours, "tf": f.tf, "shape": list(f.entry.shape)} for f in self.found
            ],
            "missing": [
                {"ours": m.entry.ours, "tf": m.entry.tf, "near": list(m.near)} for m in self.missing
            ],
            "disagree": [
                {"ours": c.entry.ours, "tf": c.tf, "what": c.what} for c in self.conflicts
            ],
            "left": [
                {"tf": x.name, "shape": list(x.shape), "dtype": x.dtype, "why": x.why}
                for x in self.left
            ],
            "unused_rules": list(self.unused_rules),
        }


def _missing_text(missing: Missing) -> str:
    near = f"; did you mean {' or '.join(missing.near)}?" if missing.near else ""
    near = near or (" (its variable is missing)" if missing.follows else "")
    return f"no {missing.entry.tf!r} for {missing.entry.ours}{near}"
