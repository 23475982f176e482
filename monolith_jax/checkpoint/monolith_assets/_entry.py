"""One table entry in plain Python: any order, packed or not, unknown fields passed over.

EntryDump {1 id sfixed64, 2 repeated float num, 3 OptimizerDump opt, 4 int64 last_update_ts_sec};
monolith/native_training/runtime/hash_table/embedding_hash_table.proto. What the compiled walk
does not recognise comes here, and the first entry of each file, which tells the layout.
"""

from dataclasses import dataclass, field

from monolith_jax.checkpoint.monolith_assets._dumps import OPTIMIZERS, Optimizer
from monolith_jax.checkpoint.tf._wire import BYTES, FIXED32, FIXED64, VARINT, Malformed, fields
from monolith_jax.checkpoint.tf._wire import signed as to_signed


@dataclass
class SliceDump:
    """One SingleOptimizerDump: floats as the bits of float32, by field number; ints by number."""

    optimizer: Optimizer
    floats: dict[int, list[int]] = field(default_factory=dict)
    ints: dict[int, int] = field(default_factory=dict)


@dataclass
class Entry:
    """One id with its embedding, optimizer state and time; floats as the bits of float32."""

    id: int | None = None
    num: list[int] = field(default_factory=list)
    slices: list[SliceDump] = field(default_factory=list)
    last_update_ts_sec: int = 0


def parse_entry(data: bytes) -> Entry:
    """Returns the entry of one record.

    Raises:
      Malformed: it is no EntryDump, has no id, or an optimizer that is not known.

    Example:
      >>> entry = parse_entry(bytes.fromhex("09 0500000000000000 15 0000803f 2007"))
      >>> entry.id, [hex(bits) for bits in entry.num], entry.last_update_ts_sec
      (5, ['0x3f800000'], 7)
    """
    entry = Entry()
    for number, kind, value in fields(data):
        if number == 1:
            entry.id = to_signed(_int(value, kind, FIXED64, "id"))
        elif number == 2:
            entry.num += _floats(value, kind, "num")
        elif number == 3:
            entry.slices += _parse_optimizers(_bytes(value, kind, "opt"))
        elif number == 4:
            entry.last_update_ts_sec = to_signed(_int(value, kind, VARINT, "last_update_ts_sec"))
    if entry.id is None:
        raise Malformed("an entry without an id")
    return entry


def parse_meta(data: bytes) -> tuple[str, int]:
    """Returns (table name, number of entries) of one MultiHashTableMetadata record.

    Example:
      >>> parse_meta(bytes.fromhex("0a0475736572 1003"))
      ('user', 3)
    """
    name, entries = "", 0
    for number, kind, value in fields(data):
        if number == 1:
            try:
                name = _bytes(value, kind, "table_name").decode()
            except UnicodeDecodeError as error:
                raise Malformed("a table's name is not UTF-8") from error
        elif number == 2:
            entries = _int(value, kind, VARINT, "num_entries")
    if not name:
        raise Malformed("a table without a name")
    return name, entries


def _parse_optimizers(data: bytes) -> list[SliceDump]:
    found = []
    for number, kind, value in fields(data):
        if number == 1:
            found.append(_parse_one(_bytes(value, kind, "dump")))
    return found


def _parse_one(data: bytes) -> SliceDump:
    """Returns the one optimizer of a SingleOptimizerDump."""
    found: list[SliceDump] = []
    for number, kind, value in fields(data):
        optimizer = OPTIMIZERS.get(number)
        if optimizer is None:
            known = ", ".join(f"{o.number} {o.name}" for o in OPTIMIZERS.values())
            raise Malformed(f"an optimizer of number {number}; known are {known}")
        found.append(_parse_slots(optimizer, _bytes(value, kind, optimizer.name)))
    if len(found) != 1:
        raise Malformed(f"{len(found)} optimizers where one belongs")
    return found[0]


def _parse_slots(optimizer: Optimizer, data: bytes) -> SliceDump:
    dump = SliceDump(optimizer)
    by_number = {of.number: of for of in optimizer.fields}
    for of in optimizer.fields:
        if of.kind == "int":
            dump.ints[of.number] = 0
        else:
            dump.floats[of.number] = []
    for number, kind, value in fields(data):
        if number not in by_number:
            continue
        of = by_number[number]
        name = f"{optimizer.name}.{of.name}"
        if of.kind == "int":
            dump.ints[number] = to_signed(_int(value, kind, VARINT, name))
        elif of.kind == "float":
            dump.floats[number] = [_int(value, kind, FIXED32, name)]
        else:
            dump.floats[number] += _floats(value, kind, name)
    for of in optimizer.fields:
        if of.kind == "float" and not dump.floats[of.number]:
            dump.floats[of.number] = [0]
    return dump


def _int(value: int | bytes, kind: int, wanted: int, name: str) -> int:
    if kind != wanted or not isinstance(value, int):
        raise Malformed(f"{name} has the wire type {kind}, not {wanted}")
    return value


def _bytes(value: int | bytes, kind: int, name: str) -> bytes:
    if kind != BYTES or not isinstance(value, bytes):
        raise Malformed(f"{name} has the wire type {kind}, not {BYTES}")
    return value


def _floats(value: int | bytes, kind: int, name: str) -> list[int]:
    if kind == FIXED32 and isinstance(value, int):
        return [value]
    packed = _bytes(value, kind, name)
    if len(packed) % 4:
        raise Malformed(f"{name} is {len(packed)} bytes of floats")
    return [int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4)]
