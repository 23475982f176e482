"""The sizes of a batch that a step was compiled for: kept with it, and given back to the engine."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from monolith_jax.embedding._room import Room
from monolith_jax.embedding._room import rooms_of as lookups_rooms
from monolith_jax.embedding.sparsecore import Limits, SparseCoreEngine


def rooms_of(engine: Any, lookups: Any) -> dict[str, Any]:
    """Returns the sizes of a batch's lookups, by stack and name, for JSON.

    Args:
      engine: that prepared them.
      lookups: arrays, or `jax.ShapeDtypeStruct`s.
    """
    if not isinstance(engine, SparseCoreEngine):
        rooms = lookups_rooms(lookups, engine.devices)
        return {
            name: room._asdict() | {"send": room.send and list(room.send)}
            for name, room in rooms.items()
        }
    found = {}
    for name, asked in lookups.items():
        buffer = asked.rows.size // engine.layouts[name].total_cores
        found[name] = dataclasses.asdict(Limits(asked.max_ids, asked.max_rows, buffer))
    return found


def make_room(engine: Any, sizes: Mapping[str, Any]) -> None:
    """Has the engine pad its batches to sizes that `rooms_of` gave for one of the same kind.

    Args:
      engine: before it prepares a batch.
      sizes: back from JSON; a batch that they do not hold gets its own.
    """
    if isinstance(engine, SparseCoreEngine):
        engine.make_room({name: Limits(**each) for name, each in sizes.items()})
        return
    engine.make_room(
        {
            name: Room(**each | {"send": each["send"] and tuple(each["send"])})
            for name, each in sizes.items()
        }
    )
