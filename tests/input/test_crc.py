"""Both checksums against RFC 3720's vectors and the crc32c package."""

import crc32c as reference
import numpy as np
import pytest

from monolith_jax.input import _crc, _jit
from monolith_jax.input.write import masked_crc32c

WAYS = [_crc.crc32c_portable]
if _jit.has_crc_instruction():
    WAYS.append(_crc.crc32c_instruction)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_known_vectors(way: object, data: bytes, crc: int) -> None:
    buffer = np.frombuffer(data + bytes(_jit.SLACK), np.uint8).copy()
    assert way(buffer, 0, len(data)) == crc  # type: ignore[operator]


@pytest.mark.parametrize("way", WAYS)
def test_any_size_at_any_alignment(way: object) -> None:
    data = np.random.default_rng(0).integers(0, 256, 600).astype(np.uint8)
    for size in [*range(40), 255, 500]:
        for start in range(9):
            expected = reference.crc32c(data[start : start + size].tobytes())
            assert way(data, start, start + size) == expected  # type: ignore[operator]
    assert _crc.masked_crc32c(data, 3, 77) == masked_crc32c(data[3:77].tobytes())
