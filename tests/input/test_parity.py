"""The walk against TensorFlow's own parser and protobuf's, on sound, odd and mutated records."""

import random
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.errors import DataError
from monolith_jax.input import Column, Columns, Ragged, read_columns
from monolith_jax.input.write import frame

SCHEMA = (
    Column("id", "int64"),
    Column("a_name_that_is_longer_than_sixteen_bytes", "int64", default=-7),
    Column("dense", "float32", 3, default=0.5),
    Column("score", "float32"),
    Column("ids", "int64", None, ()),
    Column("weights", "float32", None, ()),
)
LONG = SCHEMA[1].name
BYTES, FLOAT, INT64 = 1, 2, 3


# An encoder that can write every form the wire format allows, not only those that writers write.


def varint(value: int, extra: int = 0) -> bytes:
    """`extra` more bytes than needed: legal, and never written."""
    value, out = value & (2**64 - 1), bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(min(extra, 10 - len(out))):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def values(kind: int, items: list[Any], packed: bool = True, extra: int = 0) -> bytes:
    if kind == BYTES:
        return b"".join(field(1, item) for item in items)
    if kind == FLOAT:
        plain = [struct.pack("<f", item) for item in items]
        return field(1, b"".join(plain)) if packed else b"".join(b"\x0d" + p for p in plain)
    plain = [varint(item, extra) for item in items]
    return field(1, b"".join(plain)) if packed else b"".join(b"\x08" + p for p in plain)


def entry(key: str, feature: bytes, value_first: bool = False) -> bytes:
    parts = [field(1, key.encode()), field(2, feature)]
    return field(1, b"".join(reversed(parts) if value_first else parts))


UNKNOWN = [b"\x98\x06\x05", b"\x9d\x06abcd", b"\x99\x06abcdefgh", field(99, b"xyz")]


def odd_example(rng: random.Random) -> bytes:
    """A sound tf.Example in a form chosen at random, with duplicates and unknown fields."""
    entries = []
    for column in SCHEMA:
        for _ in range(rng.choice([1, 1, 1, 1, 2])):
            kind = INT64 if column.dtype == "int64" else FLOAT
            size = column.length or rng.choice([0, 1, 2, 20, 100])
            if kind == INT64:
                items: list[Any] = [
                    rng.choice([0, 1, -1, 300, 2**62, -(2**63)]) for _ in range(size)
                ]
            else:
                items = [rng.choice([0.0, -0.0, 1.5, float("inf"), 1e-42]) for _ in range(size)]
            listed = values(kind, items, rng.random() < 0.7, rng.choice([0, 0, 1, 9]))
            if rng.random() < 0.1 and column.default is not None:
                continue
            entries.append(entry(column.name, field(kind, listed), rng.random() < 0.3))
    entries.append(entry("unknown", field(BYTES, values(BYTES, [b"abc", b""]))))
    entries.append(entry("", field(INT64, values(INT64, [1]))))
    rng.shuffle(entries)
    cut = rng.randrange(len(entries))
    groups = [field(1, b"".join(part)) for part in (entries[:cut], entries[cut:])]
    return rng.choice([*UNKNOWN, b""]).join([b"", *groups, b""])


@pytest.fixture(scope="module")
def tf_parse(tf: Any) -> Any:
    """Parses serialized examples by TensorFlow into `Columns`, or raises InvalidArgumentError."""
    features: dict[str, Any] = {}
    for column in SCHEMA:
        dtype = tf.int64 if column.dtype == "int64" else tf.float32
        if column.length is None:
            features[column.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        else:
            shape = [] if column.length == 1 else [column.length]
            default = None if column.default is None else np.full(shape, column.default)
            features[column.name] = tf.io.FixedLenFeature(shape, dtype, default)

    def parse(examples: list[bytes]) -> Columns:
        return {
            name: Ragged(found.values.numpy(), found.row_splits.numpy())
            if hasattr(found, "row_splits")
            else found.numpy()
            for name, found in tf.io.parse_example(examples, features).items()
        }

    return parse


def assert_equal(ours: Columns, theirs: Columns) -> None:
    assert set(ours) == set(theirs)
    for name, mine in ours.items():
        other = theirs[name]
        if isinstance(mine, Ragged):
            assert isinstance(other, Ragged)
            np.testing.assert_array_equal(mine.offsets, other.offsets, name)
            mine, other = mine.values, other.values
        assert isinstance(other, np.ndarray)
        assert mine.dtype == other.dtype
        # Bits, not values: a NaN's payload and the sign of zero count too.
        assert mine.shape == other.shape
        assert mine.tobytes() == other.tobytes(), name


def by_protobuf(tf: Any, data: bytes) -> Columns:
    """The columns of one example by protobuf's parser, defaults and all."""
    found: Columns = {}
    features = tf.train.Example.FromString(data).features.feature
    for column in SCHEMA:
        kind = "int64_list" if column.dtype == "int64" else "float_list"
        given = features.get(column.name)
        if given is None or given.WhichOneof("kind") is None:
            assert column.default is not None, column.name
            items = [] if column.length is None else [column.default] * column.length
        else:
            assert given.WhichOneof("kind") == kind, column.name
            items = list(getattr(given, kind).value)
            assert column.length in (None, len(items)), column.name
        array = np.array(items, column.dtype)
        if column.length is None:
            found[column.name] = Ragged(array, np.array([0, len(items)]))
        else:
            found[column.name] = array if column.length == 1 else array[None]
    return found


INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(width=32)


@st.composite
def plain_examples(draw: st.DrawFn) -> dict[str, tuple[int, list[Any]]]:
    record: dict[str, tuple[int, list[Any]]] = {
        "id": (INT64, [draw(INTS)]),
        "score": (FLOAT, [draw(FLOATS)]),
    }
    if draw(st.booleans()):
        record[LONG] = (INT64, [draw(INTS)])
    if draw(st.booleans()):
        record["dense"] = (FLOAT, draw(st.lists(FLOATS, min_size=3, max_size=3)))
    if draw(st.booleans()):
        record["ids"] = (INT64, draw(st.lists(INTS, max_size=40)))
    if draw(st.booleans()):
        record["weights"] = (FLOAT, draw(st.lists(FLOATS, max_size=60)))
    for key in draw(st.lists(st.text(max_size=24), max_size=3)):
        record.setdefault(key, (BYTES, draw(st.lists(st.binary(max_size=200), max_size=3))))
    return record


@settings(deadline=None, max_examples=150)
@given(st.lists(plain_examples(), min_size=1, max_size=8))
def test_records_as_protobuf_writes_them(tf: Any, tf_parse: Any, records: list[Any]) -> None:
    lists = {BYTES: "bytes_list", FLOAT: "float_list", INT64: "int64_list"}
    types = {BYTES: tf.train.BytesList, FLOAT: tf.train.FloatList, INT64: tf.train.Int64List}
    serialized = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    key: tf.train.Feature(**{lists[kind]: types[kind](value=items)})
                    for key, (kind, items) in record.items()
                }
            )
        ).SerializeToString()
        for record in records
    ]
    ours, damaged = read_columns(b"".join(map(frame, serialized)), SCHEMA)
    assert damaged == 0
    assert_equal(ours, tf_parse(serialized))


def test_records_in_every_form_of_the_wire(tf: Any, tf_parse: Any) -> None:
    rng = random.Random(1)
    agreed = 0
    for _ in range(300):
        data = odd_example(rng)
        ours, _ = read_columns(frame(data), SCHEMA)
        assert_equal(ours, by_protobuf(tf, data))
        try:
            theirs = tf_parse([data])
        except tf.errors.InvalidArgumentError:
            continue
        agreed += 1
        assert_equal(ours, theirs)
    assert agreed > 250


def mutate(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at, way = rng.randrange(len(changed)), rng.randrange(5)
        if way == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x12, 0x1A])
        elif way == 2:
            del changed[at : at + rng.choice([1, 2, 8])]
        elif way == 3:
            changed[at:at] = rng.choice([b"\xff" * 9 + b"\x7f", b"\x0a", b"\x00", b"\x80\x80"])
        else:
            del changed[rng.randrange(len(changed)) :]
        if not changed:
            break
    return bytes(changed)


def test_mutated_records_are_equal_or_an_error(tf: Any, tf_parse: Any) -> None:
    rng = random.Random(2)
    outcomes = {"equal": 0, "equal to protobuf only": 0, "error": 0, "stricter": 0}
    for _ in range(3000):
        data = mutate(rng, odd_example(rng))
        try:
            theirs = tf_parse([data])
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, UnicodeDecodeError):
            theirs = None  # UnicodeDecodeError: TensorFlow's message quotes the record's bytes
        try:
            ours, _ = read_columns(frame(data), SCHEMA)
        except DataError:
            outcomes["error" if theirs is None else "stricter"] += 1
            continue
        if theirs is not None:
            assert_equal(ours, theirs)
            outcomes["equal"] += 1
        else:
            # TensorFlow's parser refuses some forms that protobuf allows.
            assert_equal(ours, by_protobuf(tf, data))
            outcomes["equal to protobuf only"] += 1
    assert outcomes["equal"] > 300, outcomes
    assert outcomes["error"] > 300, outcomes
    # Stricter than TensorFlow only on what it and protobuf read differently, or on broken lists
    # that it does not look at (an earlier duplicate, what stands behind a list).
    assert outcomes["stricter"] < 200, outcomes


@pytest.mark.parametrize(
    ("feature", "meaning"),
    [
        (field(INT64, values(INT64, [1])) + field(INT64, values(INT64, [2])), "two lists"),
        (field(INT64, values(INT64, [1]) + values(INT64, [2])), "two packed runs"),
        (field(INT64, values(INT64, [1]) + b"\x08\x02"), "a run and a single value"),
        (field(INT64, b"\x08\x02" + values(INT64, [1])), "a single value and a run"),
    ],
)
def test_forms_that_tensorflow_and_protobuf_read_differently(feature: bytes, meaning: str) -> None:
    data = field(1, entry("ids", feature))
    with pytest.raises(DataError, match="TensorFlow and protobuf read differently"):
        read_columns(frame(data), (Column("ids", "int64", None),))


def test_two_values_in_one_entry_are_ambiguous() -> None:
    value = field(2, field(INT64, values(INT64, [1])))
    data = field(1, field(1, field(1, b"ids") + value + value))
    with pytest.raises(DataError, match="read differently"):
        read_columns(frame(data), (Column("ids", "int64", None),))


@pytest.mark.parametrize("first", [[1], [1, 2], []])
def test_the_last_entry_of_a_key_counts(tf: Any, tf_parse: Any, first: list[int]) -> None:
    score = entry("score", field(FLOAT, values(FLOAT, [1.0])))
    for wrong in (field(INT64, values(INT64, first)), field(BYTES, values(BYTES, [b"x"])), b""):
        right = entry("id", field(INT64, values(INT64, [5])))
        data = field(1, entry("id", wrong) + score + right)
        ours, _ = read_columns(frame(data), SCHEMA)
        assert ours["id"].tolist() == [5]
        assert_equal(ours, by_protobuf(tf, data))
        assert_equal(ours, tf_parse([data]))
