"""What was wrong with a record, in words."""

import numpy as np

from monolith_jax.errors import did_you_mean
from monolith_jax.input._layout import (
    AMBIGUOUS,
    BAD_CRC,
    BAD_HEADER,
    BYTES,
    FLOAT,
    INT64,
    MALFORMED,
    MISSING,
    WRONG_COUNT,
    WRONG_KIND,
)
from monolith_jax.input._wire import skip_field, span
from monolith_jax.input.schema import Column

_KINDS = {BYTES: "a bytes_list", FLOAT: "a float_list", INT64: "an int64_list"}


def explain(status: int, where: int, column: Column | None, found: int, record: memoryview) -> str:
    """Returns what follows "record N at byte M " in the message.

    Args:
      status: what the walk returned, from BAD_HEADER on.
      where: the byte of the file at fault, of MALFORMED and AMBIGUOUS.
      column: the column at fault, of MISSING, WRONG_KIND and WRONG_COUNT.
      found: the kind or the number of values found.
      record: the data of the record; of BAD_HEADER the first bytes of its header.
    """
    if status == BAD_HEADER:
        if bytes(record[:2]) == b"\x1f\x8b":
            return "begins like gzip: compressed TFRecord files are not read, decompress it first"
        return "has a length that does not match its checksum: this is no TFRecord, or is damaged"
    if status == BAD_CRC:
        return "does not match its checksum"
    if status == MALFORMED:
        return f"is no tf.Example: malformed at byte {where}"
    if status == AMBIGUOUS:
        return (
            f"has a feature at byte {where} in a form that TensorFlow and protobuf read "
            "differently: two lists where one belongs"
        )
    assert column is not None
    if status == MISSING:
        return f"has no feature {column.name!r}: {did_you_mean(column.name, feature_keys(record))}"
    if status == WRONG_COUNT:
        values = "value" if found == 1 else "values"
        return f"has {found} {values} in feature {column.name!r}, wanted {column.length}"
    assert status == WRONG_KIND, status
    wanted = INT64 if column.dtype == "int64" else FLOAT
    return f"has {_KINDS[found]} in feature {column.name!r}, wanted {_KINDS[wanted]}"


def feature_keys(record: memoryview) -> list[str]:
    """Returns the keys of a tf.Example that the walk has found to be well formed, sorted.

    Example:
      >>> feature_keys(memoryview(bytes.fromhex("0a0b 0a09 0a02 6964 1203 1a01 00")))
      ['id']
    """
    # The loads of the wire's helpers may read past the end.
    data = np.frombuffer(bytes(record) + bytes(32), np.uint8)
    keys = set()
    for features in _fields(data, 0, len(record), 0x0A):
        for entry in _fields(data, *features, 0x0A):
            for first, last in _fields(data, *entry, 0x0A):
                keys.add(bytes(data[first:last]).decode(errors="replace"))
    return sorted(keys)


def _fields(data: np.ndarray, at: int, end: int, tag: int) -> list[tuple[int, int]]:
    found = []
    while 0 <= at < end:
        if data[at] == tag:
            first, at = span(data, at + 1, end)
            found.append((first, at))
        else:
            at = skip_field(data, at, end)
    return found
