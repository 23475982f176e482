"""Damaged and forged TensorFlow checkpoints, each a function of a sample, a kind and a seed.

Kinds whose name says nothing of checksums make them right again, so that the change is read:

    index    bytes of the index changed, cut, moved; its checksums find nearly all
    values   bytes of one key or value of the index changed
    fields   an entry's dtype, shape, place, size, crc or slices replaced; or the header's fields
    blocks   bytes of a block changed; places of blocks that repeat, loop, overlap or lie outside
    snappy   blocks compressed, then damaged; bombs; keys that grow
    data     bytes of a data file changed; the checksums find them
    forged   bytes of a data file changed, and the checksums of the tensors made right
    strings  lengths of strings that lie, their checksums right
    missing  data files that are gone, cut, empty or folders
"""

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from monolith_jax.checkpoint.tf import BundleWriter, merge_bundle
from monolith_jax.checkpoint.tf import _table_write as tables
from monolith_jax.checkpoint.tf._crc import crc32c, mask
from monolith_jax.checkpoint.tf._ordered_code import slice_key
from monolith_jax.checkpoint.tf._protos import Entry, decode_entry, encode_entry, encode_header
from monolith_jax.checkpoint.tf._table import FOOTER, MAGIC, read_table
from monolith_jax.checkpoint.tf._wire import bytes_field, number_field, varint

SHARDS = 2
EXTREMES = (0, 1, 2, 127, 128, 1 << 16, 1 << 31, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63)
FOLDER = b"\0a folder lies here"  # the content of a data file that is none


class Files(NamedTuple):
    """The contents of an index and of its data files; None: there is no such file."""

    index: bytes
    data: tuple[bytes | None, ...]


class Sample(NamedTuple):
    """A sound checkpoint: its prefix, files, and what its index holds."""

    prefix: Path
    files: Files
    pairs: list[tuple[bytes, bytes]]
    entries: dict[bytes, Entry]


def make_sample(folder: Path) -> Sample:
    """Writes a small checkpoint with one of everything, in two data files."""
    prefix = folder / "m"
    rng = np.random.default_rng(0)
    with BundleWriter(prefix, shard=0, shards=SHARDS) as writer:
        writer.add("a/float", np.arange(6, dtype=np.float32).reshape(2, 3))
        writer.add("a/strings", np.array([b"one", b"", b"three" * 30], object))
        writer.add("large", rng.normal(size=(160, 128)).astype(np.float32))
        writer.add("scalar", np.int64(5))
        writer.add_slice("rows", (4, 3), np.s_[:2, :], np.ones((2, 3), np.float32))
        writer.add_slice("tiles", (4, 6), np.s_[:2, :3], np.full((2, 3), 1, np.int32))
        writer.add_slice("tiles", (4, 6), np.s_[:2, 3:], np.full((2, 3), 2, np.int32))
    with BundleWriter(prefix, shard=1, shards=SHARDS) as writer:
        writer.add("b/bfloat16", np.arange(8).astype(ml_dtypes.bfloat16).reshape(2, 2, 2))
        writer.add("b/bool", np.array([True, False, True]))
        writer.add("b/complex", np.array([1 + 2j, 3 - 1j], np.complex64))
        writer.add("empty", np.zeros((0, 4), np.float64))
        writer.add("wide", np.arange(16, dtype=np.int64))
        writer.add_slice("rows", (4, 3), np.s_[2:, :], np.full((2, 3), 2, np.float32))
        writer.add_slice("tiles", (4, 6), np.s_[2:, :3], np.full((2, 3), 3, np.int32))
        writer.add_slice("tiles", (4, 6), np.s_[2:, 3:], np.full((2, 3), 4, np.int32))
    merge_bundle(prefix, SHARDS)
    data = tuple(Path(f"{prefix}.data-{i:05d}-of-00002").read_bytes() for i in range(SHARDS))
    index = Path(f"{prefix}.index").read_bytes()
    pairs = read_table(index)
    entries = {key: decode_entry(value, {}) for key, value in pairs if key}
    return Sample(prefix, Files(index, data), pairs, entries)


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 5))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _splice(data: bytearray, rng: random.Random) -> None:
    at, source = rng.randrange(len(data)), rng.randrange(len(data))
    piece = data[source : source + rng.randrange(1, 40)]
    data[at : at + rng.choice((0, len(piece)))] = piece


def _extreme(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    value = varint(rng.choice((*EXTREMES, (1 << 64) - 1)))
    data[at : at + rng.choice((1, len(value)))] = value


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Returns bytes with one or a few of them changed, inserted, or cut away."""
    out = bytearray(data or b"\0")
    rng.choice((_flip, _flip, _cut, _splice, _extreme))(out, rng)
    return bytes(out)


def _index(sample: Sample, rng: random.Random) -> Files:
    return Files(mutated(sample.files.index, rng), sample.files.data)


def _values(sample: Sample, rng: random.Random) -> Files:
    table = dict(sample.pairs)
    for _ in range(rng.choice((1, 1, 1, 3))):
        key = rng.choice(list(table))
        value = table.pop(key)
        if rng.random() < 0.8 or not key:
            value = mutated(value, rng)
        else:
            key = mutated(key, rng)
        table[key] = value
    size = rng.choice((1, 64, 262144))
    return Files(tables.write_table(sorted(table.items()), size), sample.files.data)


def _fields(sample: Sample, rng: random.Random) -> Files:
    entries = dict(sample.entries)
    for _ in range(rng.choice((1, 1, 2, 4))):
        key = rng.choice(list(entries))
        entries[key] = _changed(entries[key], sample, rng)
        if rng.random() < 0.6:
            entries[key] = _signed_again(entries[key], sample.files.data)
        if rng.random() < 0.1:  # an entry under the key of a part, its own or another's
            owner = rng.choice((b"rows", b"tiles", key))
            extents = [(rng.choice((0, 2, 3)), rng.choice((-1, 2, 3))) for _ in range(2)]
            entries[slice_key(owner, extents)] = entries[key]
    pairs = [(key, encode_entry(entry)) for key, entry in sorted(entries.items())]
    header = encode_header(SHARDS) if rng.random() < 0.95 else _header(rng)
    return Files(tables.write_table([(b"", header), *pairs]), sample.files.data)


def _header(rng: random.Random) -> bytes:
    version = number_field(1, 1) + number_field(2, rng.choice((0, 0, 1, 2, 1 << 40)))
    shards = number_field(1, rng.choice((0, 1, 2, 3, 99999, 100000, 1 << 40, 1 << 63)))
    more = number_field(2, rng.choice((0, 0, 1))) + bytes_field(rng.choice((3, 3, 9)), version)
    return shards + more


def _changed(entry: Entry, sample: Sample, rng: random.Random) -> Entry:
    other = rng.choice(list(sample.entries.values()))
    size = len(sample.files.data[entry.shard % SHARDS] or b"")
    match rng.choice(("dtype", "shape", "shape", "shard", "offset", "size", "slices", "slices")):
        case "dtype":
            return entry._replace(dtype=rng.choice((*range(40), 101, 1 << 31)))
        case "shape":
            return entry._replace(shape=_changed_shape(entry.shape, rng))
        case "shard":
            return entry._replace(shard=rng.choice((0, 1, *EXTREMES, 99999)))
        case "offset":
            near = (other.offset, other.offset + 1, max(other.offset - 1, 0), size, size - 1)
            return entry._replace(offset=rng.choice((*near, *EXTREMES)))
        case "size":
            near = (other.size, entry.size + 1, max(entry.size - 1, 0), size, 0)
            return entry._replace(size=rng.choice((*near, *EXTREMES)))
    return entry._replace(slices=_changed_slices(entry, rng))


def _changed_shape(shape: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
    sizes = list(shape) or [1]
    at = rng.randrange(len(sizes))
    match rng.randrange(6):
        case 0:
            sizes[at] = rng.choice(EXTREMES)
        case 1:
            sizes = [0, *(rng.choice(EXTREMES) for _ in range(rng.choice((1, 2, 70))))]
        case 2:
            sizes += [1] * rng.choice((1, 61, 62, 63, 64, 252, 300))
        case 3:
            rng.shuffle(sizes)
        case 4:
            sizes[at] += rng.choice((-1, 1)) if sizes[at] else 1
        case 5:
            sizes = [1 << 31] * rng.choice((2, 3, 4))
    return tuple(sizes)


def _changed_slices(entry: Entry, rng: random.Random) -> tuple[tuple[tuple[int, int], ...], ...]:
    slices = [list(extents) for extents in entry.slices]
    if not slices:
        return rng.choice(
            (
                (tuple((0, -1) for _ in entry.shape),),
                (tuple((0, size) for size in entry.shape),),
                (((0, 1),) * rng.choice((1, 2, 300)),),
                tuple(((i, 1), (0, -1)) for i in range(rng.choice((4, 24, 300, 300, 5000)))),
            )
        )
    at = rng.randrange(len(slices))
    match rng.randrange(6):
        case 0:
            del slices[at]
        case 1:
            slices.append(slices[at])
        case 2:
            slices.reverse()
        case 3:
            slices[at].append((0, -1))
        case 4:
            slices = [
                [(i % 4, 1), (i // 4, 1)] for i in range(rng.choice((24, 24, 200, 200, 9000)))
            ]
    if slices and rng.random() < 0.8:
        extents = slices[rng.randrange(len(slices))]
        extents += [(0, -1)] * (not extents)
        place = rng.randrange(len(extents))
        start = rng.choice((0, 1, 2, 3, *EXTREMES, -1))
        extents[place] = (start, rng.choice((-1, 0, 1, 2, 3, *EXTREMES[:-1])))
    return tuple(map(tuple, slices))


def _signed_again(entry: Entry, data: tuple[bytes | None, ...]) -> Entry:
    """Returns the entry with the crc32c of what lies where it says, if anything does."""
    if not 0 <= entry.shard < len(data) or entry.slices:
        return entry
    stored = (data[entry.shard] or b"")[entry.offset : entry.offset + entry.size]
    return entry._replace(crc=mask(crc32c(stored))) if len(stored) == entry.size else entry


class _Layout(NamedTuple):
    """The blocks of a table as they lie in the file, and the places that its index names."""

    body: bytes
    places: list[tuple[int, int]]
    keys: list[bytes]


def _framed(content: bytes, kind: int = 0) -> bytes:
    framed = content + bytes([kind])
    return framed + struct.pack("<I", mask(crc32c(framed)))


def _laid_out(blocks: list[tuple[bytes, int]]) -> _Layout:
    body, places = bytearray(), []
    for content, kind in blocks:
        places.append((len(body), len(content)))
        body += _framed(content, kind)
    return _Layout(bytes(body), places, [b"z%06d" % i for i in range(len(blocks))])


def _table(layout: _Layout, footer: tuple[int, int] | None = None) -> bytes:
    """Returns the file: the blocks, an empty metaindex, the index, the footer."""
    meta = tables._Block(1).bytes()
    index = tables._Block(1)
    for key, (start, size) in zip(layout.keys, layout.places, strict=True):
        index.add(key, varint(start) + varint(size))
    content = index.bytes()
    out = layout.body + _framed(meta)
    place = footer or (len(out), len(content))
    handles = varint(len(layout.body)) + varint(len(meta)) + varint(place[0]) + varint(place[1])
    tail = handles.ljust(FOOTER - 8, b"\0")[: FOOTER - 8] + struct.pack("<Q", MAGIC)
    return out + _framed(content) + tail


def _contents(sample: Sample, rng: random.Random) -> list[bytes]:
    """Returns the contents of blocks that hold the sample's entries."""
    contents, block = [], tables._Block(16)
    limit = rng.choice((1, 100, 400))
    for key, value in sample.pairs:
        block.add(key, value)
        if block.size() > limit:
            contents.append(block.bytes())
            block = tables._Block(16)
    return [*contents, block.bytes()]


def _blocks(sample: Sample, rng: random.Random) -> Files:
    contents = _contents(sample, rng)
    footer = None
    if rng.random() < 0.5:
        at = rng.randrange(len(contents))
        contents[at] = mutated(contents[at], rng)
    kinds = [0] * len(contents)
    if rng.random() < 0.1:
        kinds[rng.randrange(len(kinds))] = rng.choice((1, 2, 255))
    layout = _laid_out(list(zip(contents, kinds, strict=True)))
    if rng.random() < 0.6:
        layout = _changed_places(layout, rng)
    if rng.random() < 0.15:
        start = len(layout.body)
        footer = rng.choice(
            (layout.places[0], (start, 8), (start + 13, 1 << 20), (0, 0), (1 << 62, 8))
        )
    return Files(_table(layout, footer), sample.files.data)


def _changed_places(layout: _Layout, rng: random.Random) -> _Layout:
    """Returns places that repeat, go back, overlap, lie within each other or outside."""
    places = list(layout.places)
    at = rng.randrange(len(places))
    start, size = places[at]
    end = len(layout.body)
    match rng.randrange(7):
        case 0:
            places[at] = rng.choice(places)
        case 1:
            places = places * rng.choice((2, 300))
        case 2:
            places.reverse()
        case 3:  # the metaindex, the index itself, all of the file
            places[at] = rng.choice(((end, 8), (end + 13, 8 + 8 * len(places)), (0, end)))
        case 4:
            places[at] = (max(start + rng.choice((-1, 1)), 0), max(size + rng.choice((-1, 1)), 0))
        case 5:
            places[at] = (rng.choice(EXTREMES), rng.choice(EXTREMES))
        case 6:  # a sound block within the value of another's entry
            inner = tables._Block(16)
            inner.add(b"inner", b"")
            hidden, outer = _framed(inner.bytes()), tables._Block(16)
            outer.add(b"zz", hidden)
            body = layout.body + _framed(outer.bytes())
            inside = body.index(hidden, end)
            places += [(end, len(outer.bytes())), (inside, len(hidden) - 5)]
            layout = layout._replace(body=body)
    return layout._replace(places=places, keys=[b"z%06d" % i for i in range(len(places))])


def compressed(data: bytes, rng: random.Random) -> bytes:
    """Returns a snappy block of some bytes: copies of each kind where four bytes came before."""
    out, at, seen = bytearray(varint(len(data))), 0, {}
    while at < len(data):
        before = seen.get(data[at : at + 4])
        seen[data[at : at + 4]] = at
        if before is None or at + 4 > len(data) or rng.random() < 0.1:
            size = min(rng.randrange(1, 80), len(data) - at)
            long = size > 60 or rng.random() < 0.1
            out += bytes([60 << 2, size - 1]) if long else bytes([(size - 1) << 2])
            out += data[at : at + size]
        else:
            size, back = 4, at - before
            while size < 64 and at + size < len(data) and data[before + size] == data[at + size]:
                size += 1
            if size < 12 and back < 2048 and rng.random() < 0.7:
                out += bytes([back >> 8 << 5 | (size - 4) << 2 | 1, back & 255])
            elif back < 1 << 16 and rng.random() < 0.8:
                out += bytes([(size - 1) << 2 | 2]) + struct.pack("<H", back)
            else:
                out += bytes([(size - 1) << 2 | 3]) + struct.pack("<I", back)
        at += size
    return bytes(out)


def _snappy(sample: Sample, rng: random.Random) -> Files:
    blocks = [(compressed(content, rng), 1) for content in _contents(sample, rng)]
    at = rng.randrange(len(blocks))
    if rng.random() < 0.3:
        blocks[at] = rng.choice(
            (_claim, _expanding, _expanding_keys, _growing_keys),
        )(blocks[at][0], rng)
    elif rng.random() < 0.9:
        blocks[at] = (mutated(blocks[at][0], rng), rng.choice((0, 1, 1, 1, 1, 2)))
    return Files(_table(_laid_out(blocks)), sample.files.data)


def _claim(block: bytes, rng: random.Random) -> tuple[bytes, int]:
    return varint(rng.choice((*EXTREMES, 22 * len(block), 22 * len(block) - 1))) + block[1:], 1


def _expanding(block: bytes, rng: random.Random) -> tuple[bytes, int]:
    """A block that really holds 21 times its size, of zeros."""
    copies = rng.choice((100, 1_000, 8_000))
    return varint(1 + 64 * copies) + b"\0\0" + bytes([63 << 2 | 2, 1, 0]) * copies, 1


def _expanding_keys(block: bytes, rng: random.Random) -> tuple[bytes, int]:
    """The same of entries of three bytes, all with the same key."""
    copies = rng.choice((100, 1_000, 8_000))
    entry = bytes([0, 1, 0, 97])
    size = 4 + 64 * copies + 8
    tail = bytes([7 << 2]) + struct.pack("<II", 0, 1)
    body = bytes([3 << 2]) + entry + bytes([63 << 2 | 2, 4, 0]) * copies
    return varint(size) + body + tail, 1


def _growing_keys(block: bytes, rng: random.Random) -> tuple[bytes, int]:
    """Entries each of whose keys is that before and a byte more."""
    count = rng.choice((100, 3_000, 12_000))
    body = b"".join(varint(i) + b"\1\0a" for i in range(count))
    return body + struct.pack("<II", 0, 1), 0


def _with_shard(files: Files, shard: int, content: bytes | None) -> Files:
    data = list(files.data)
    data[shard] = content
    return Files(files.index, tuple(data))


def _data(sample: Sample, rng: random.Random) -> Files:
    shard = rng.randrange(SHARDS)
    return _with_shard(sample.files, shard, mutated(sample.files.data[shard] or b"", rng))


def _resigned(sample: Sample, data: tuple[bytes | None, ...], **changed: Entry) -> Files:
    entries = sample.entries | {key.encode(): entry for key, entry in changed.items()}
    pairs = [(k, encode_entry(_signed_again(e, data))) for k, e in sorted(entries.items())]
    return Files(tables.write_table([(b"", encode_header(SHARDS)), *pairs]), data)


def _forged(sample: Sample, rng: random.Random) -> Files:
    return _resigned(sample, _data(sample, rng).data)


def _strings(sample: Sample, rng: random.Random) -> Files:
    """The strings' lengths changed; the crcs of the lengths and of all made as they should be."""
    entry = sample.entries[b"a/strings"]
    first, second = sample.files.data
    count = rng.choice((0, 1, 3, 4, 40))
    near = (0, 1, 3, 100, 150)
    lengths = [rng.choice(near if rng.random() < 0.7 else EXTREMES) for _ in range(count)]
    body = b"x" * (min(sum(lengths), 400) + rng.choice((0, 0, 0, 1)))
    sizes = b"".join(struct.pack("<I" if n < 1 << 32 else "<Q", n) for n in lengths)
    check = struct.pack("<I", mask(crc32c(sizes)))
    stored = b"".join(map(varint, lengths)) + check + body
    crc = mask(crc32c(sizes + check + body))
    shape = rng.choice(((count,), (count, 1), (3,), (1 << 40,), (0, 1 << 62), ()))
    place = len(first or b"")
    changed = entry._replace(shape=shape, offset=place, size=len(stored), crc=crc)
    pairs = dict(sample.pairs) | {b"a/strings": encode_entry(changed)}
    return Files(tables.write_table(sorted(pairs.items())), ((first or b"") + stored, second))


def _missing(sample: Sample, rng: random.Random) -> Files:
    shard = rng.randrange(SHARDS)
    whole = sample.files.data[shard] or b""
    some = whole[: rng.randrange(len(whole))]
    return _with_shard(sample.files, shard, rng.choice((None, b"", FOLDER, some, some)))


KINDS: dict[str, Callable[[Sample, random.Random], Files]] = {
    "index": _index,
    "values": _values,
    "fields": _fields,
    "blocks": _blocks,
    "snappy": _snappy,
    "data": _data,
    "forged": _forged,
    "strings": _strings,
    "missing": _missing,
}
SOUND_INDEX = ("data", "missing")  # kinds whose index is the sample's: what is read is its truth


def forge(sample: Sample, kind: str, seed: int) -> tuple[Files, random.Random]:
    """Returns the files of one case, and its source of random numbers for what is read of it."""
    rng = random.Random(f"{kind}{seed}")
    return KINDS[kind](sample, rng), rng
