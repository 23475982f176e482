"""The input of a layer under test: what was given, or numbers made from a shape and a dtype."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.errors import ConfigError

_STRINGS = (
    "jax has no string arrays. Hash or look strings up on the host, before the batch, and test the "
    "layer with the integer ids: input_dtype='int32'"
)


def numeric_dtype(what: str, dtype: Any) -> np.dtype:
    """Returns `dtype` as jax has it: 64 bits become 32 unless x64 is on.

    Raises:
      ConfigError: For strings, with the way to test a layer of string features, and for anything
        else that is no dtype of numbers.
    """
    if str(dtype) in ("string", "str", "object") or np.dtype(dtype).kind in "USO":
        raise ConfigError(f"{what} {str(dtype)!r}: {_STRINGS}")
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(dtype))
    if dtype != np.bool_ and not jnp.issubdtype(dtype, jnp.number):
        raise ConfigError(f"{what} {str(dtype)!r} is no dtype of numbers")
    return dtype


def make_input(
    input_shape: Sequence[int | None] | None, input_dtype: Any, input_data: Any, seed: int
) -> tuple[np.ndarray, tuple[int | None, ...]]:
    """Returns the input and its shape with None where the size is arbitrary.

    Formula: ``10 u`` for integers and ``10 u - 0.5`` for floats with ``u`` uniform in [0, 1); a
    fair coin for bool. Each None of `input_shape` becomes a size of 1 to 3.

    Raises:
      ConfigError: If there is neither `input_data` nor `input_shape`, for negative sizes, and for
        strings.
    """
    if input_data is not None:
        given = np.asarray(input_data)
        dtype = numeric_dtype("input_data of dtype", given.dtype)
        return given.astype(dtype), tuple(given.shape if input_shape is None else input_shape)
    if input_shape is None:
        raise ConfigError("input_shape is None and there is no input_data; give one of them")
    shape = tuple(input_shape)
    if any(size is not None and size < 0 for size in shape):
        raise ConfigError(f"input_shape {shape} has a negative size; use None for any size")
    dtype = numeric_dtype("input_dtype", input_dtype or "float32")
    rng = np.random.default_rng(seed)
    sizes = [int(rng.integers(1, 4)) if size is None else size for size in shape]
    uniform = rng.random(sizes)
    if dtype == np.bool_:
        return uniform < 0.5, shape
    shift = 0.5 if jnp.issubdtype(dtype, jnp.inexact) else 0.0
    return np.asarray(10 * uniform - shift).astype(dtype), shape
