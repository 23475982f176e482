"""What a batch asks of the tables: arrays of static shape, made on the host."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax

Array: TypeAlias = Any
"""A numpy array on the host, a jax.Array within a step."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StackLookups:
    """The lookups of one batch into one stack of tables, routed to the devices that own the rows.

    With D devices, each device owns a block of the rows. `D` is 1 and `send` is None without a
    mesh. The leading axis of every array is split over the devices.

    Attributes:
      rows: int32 [D * U]; for each owner, in ascending order, the rows of its block that the whole
        batch touches, once each; the padding lies beyond the block, no two entries alike.
      index: int32 [batch, ids per example]; for each id, in the order of the stack's features, its
        place among the rows that its device receives; `NONE` (beyond any) where there is no id.
      send: int32 [D owners, D askers, C]; for each owner, the places among its `rows` of what each
        asker needs; padded with `NONE`. With `parts`, int32 [D owners, S]: what all askers need,
        one asker's behind the other's, each filled up to whole lines.
      lines: int32 [D * UL]; the lines, or parts of lines, that hold `rows`, padded as `rows` is.
        Only where the backend moves no less at once (`_reach`) and that is more than one row.
      slot: int32 [D * U]; the place of each of `rows` among the rows of `lines`; as `lines`.
      relay: int32 [D owners, D relays, R]; for each owner, the places among its `rows` of what it
        sends each relay, for askers of whom it has more than C rows; padded with `NONE`. None, as
        `forward`, where `send` holds everything.
      forward: int32 [D relays, D askers, R]; for each relay, the places among the D * R rows that
        it receives of what it passes on to each asker; they follow the D * C direct ones there.
      parts: int32 [D, 6, D]; only for the ragged exchange (`_ragged`). For each device and every
        other one, in lines: where among `send` what goes there starts, how much it is, and where
        it arrives over there; where what came from there lies here, how much it is, and where it
        started over there.
      received: rows that a device has room to receive by the ragged exchange; else 0.
      weights: float32, as `index`; the weights of the ids. Only where a feature of the stack has
        any.
    """

    rows: Array
    index: Array
    send: Array | None = None
    lines: Array | None = None
    slot: Array | None = None
    weights: Array | None = None
    relay: Array | None = None
    forward: Array | None = None
    parts: Array | None = None
    received: int = field(default=0, metadata={"static": True})


Lookups: TypeAlias = dict[str, StackLookups]
"""The lookups of one batch, by stack; biases that lie in records take those of their lead."""
