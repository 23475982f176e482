"""TensorFlow's DataType numbers and numpy's dtypes (tensorflow/core/framework/types.proto).

ml_dtypes, which comes with jax, has the ones numpy lacks. Values of int4, uint4, int2, uint2 and
float4 take a byte each, as in TensorFlow. The quantized types are their plain integers.
"""

import ml_dtypes
import numpy as np

from monolith_jax.checkpoint.tf._wire import Malformed

STRING = 7
VARIANT = 21

_NUMBERS: dict[int, np.dtype] = {
    number: np.dtype(kind)
    for number, kind in {
        1: np.float32,
        2: np.float64,
        3: np.int32,
        4: np.uint8,
        5: np.int16,
        6: np.int8,
        8: np.complex64,
        9: np.int64,
        10: np.bool_,
        14: ml_dtypes.bfloat16,
        17: np.uint16,
        18: np.complex128,
        19: np.float16,
        22: np.uint32,
        23: np.uint64,
        24: ml_dtypes.float8_e5m2,
        25: ml_dtypes.float8_e4m3fn,
        26: ml_dtypes.float8_e4m3fnuz,
        27: ml_dtypes.float8_e4m3b11fnuz,
        28: ml_dtypes.float8_e5m2fnuz,
        29: ml_dtypes.int4,
        30: ml_dtypes.uint4,
        31: ml_dtypes.int2,
        32: ml_dtypes.uint2,
        33: ml_dtypes.float4_e2m1fn,
    }.items()
}
_TO_NUMBER = {dtype: number for number, dtype in _NUMBERS.items()}
_QUANTIZED: dict[int, np.dtype] = {
    11: np.dtype(np.int8),
    12: np.dtype(np.uint8),
    13: np.dtype(np.int32),
    15: np.dtype(np.int16),
    16: np.dtype(np.uint16),
}
PLAIN: dict[int, np.dtype] = _NUMBERS | _QUANTIZED  # those stored as they lie in memory
_NUMPY: dict[int, np.dtype] = PLAIN | {STRING: np.dtype(object)}
_NAMES = {0: "DT_INVALID", 20: "DT_RESOURCE", VARIANT: "DT_VARIANT"}


def to_numpy(number: int) -> np.dtype:
    """Returns the numpy dtype of a DataType; strings are objects (bytes).

    Raises:
      Malformed: it has none, or there is no such DataType.
    """
    found = _NUMPY.get(number)
    if found is None:
        name = _NAMES.get(number, f"DataType {number}")
        raise Malformed(f"its dtype is {name}, which holds no array; only TensorFlow can read it")
    return found


def to_number(dtype: np.dtype) -> int | None:
    """Returns the DataType of a numpy dtype, in any byte order; None if it has none.

    Example:
      >>> to_number(np.dtype("float32")), to_number(np.dtype(object)), to_number(np.dtype("M8[s]"))
      (1, 7, None)
    """
    if dtype.kind in "OSU":
        return STRING
    return _TO_NUMBER.get(dtype.newbyteorder("="))


def names() -> list[str]:
    """Returns the names of the dtypes that can be written."""
    return [*sorted(str(dtype) for dtype in _TO_NUMBER), "bytes", "str"]
