"""The sizes of a program that is there already, which batches are padded to."""

from typing import NamedTuple

from monolith_jax.embedding._lookups import Lookups, StackLookups


class Room(NamedTuple):
    """The sizes of a program that is there already, for one stack; smaller batches are padded.

    Attributes:
      rows: U.
      send: (C, R), R 0 without a relay, or (S, R) of the ragged exchange; None on one device.
      lines: UL; None where rows are moved.
    """

    rows: int
    send: tuple[int, int] | None
    lines: int | None


NO_ROOM = Room(0, None, None)


def rooms_of(lookups: Lookups, devices: int) -> dict[str, Room]:
    """Returns the sizes of a batch's lookups, by stack."""
    return {name: room_of(asked, devices) for name, asked in lookups.items()}


def room_of(lookups: StackLookups, devices: int) -> Room:
    """Returns the sizes of a stack's lookups, arrays or `jax.ShapeDtypeStruct`s."""
    send = None
    if lookups.send is not None and lookups.parts is not None:
        send = (lookups.send.shape[1], lookups.received)
    elif lookups.send is not None:
        relay = lookups.relay
        send = (lookups.send.shape[2], 0 if relay is None else relay.shape[2])
    lines = None if lookups.lines is None else lookups.lines.shape[0] // devices
    return Room(lookups.rows.shape[0] // devices, send, lines)
