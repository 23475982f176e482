"""What the checks share: the layer, its variables, one input, its output, and how to compare."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.testing._layer import Layer, Variables, is_float


@dataclasses.dataclass(frozen=True)
class Case:
    """One layer with one input, as the checks get it."""

    layer: Layer
    rebuild: Callable[[Variables], Layer]
    """Makes the layer anew, with the weights if its constructor takes them."""
    variables: Variables
    x: jax.Array
    output: np.ndarray
    input_shape: tuple[int | None, ...]
    expected_output: Any
    expected_dtype: np.dtype
    expected_shape: tuple[int | None, ...] | None
    train_kwargs: Mapping[str, Any]
    assert_equal: Callable[[Any, Any], None]

    @property
    def is_differentiable(self) -> bool:
        """Whether there are floats to differentiate by, and a float output."""
        floats = any(is_float(leaf) for leaf in (self.x, *self.weights))
        return floats and is_float(self.output)

    @property
    def weights(self) -> list[Any]:
        """The leaves of the collection "params"."""
        return jax.tree.leaves(self.variables.get("params", {}))


def assert_same(actual: Any, expected: Any, slack: float = 1.0) -> None:
    """Checks that two arrays have the same shape and dtype and are equal up to rounding.

    Integers and booleans must be equal. Floats may differ by `slack` times a few roundings of
    their dtype at the scale of the largest element: programs may sum in another order.
    """
    actual, expected = jnp.asarray(actual), jnp.asarray(expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    if not jnp.issubdtype(expected.dtype, jnp.inexact):
        chex.assert_trees_all_equal(actual, expected)
        return
    unit = slack * 64 * float(jnp.finfo(expected.dtype).eps)
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    a, b = np.asarray(actual).astype(wide), np.asarray(expected).astype(wide)
    finite = np.abs(b[np.isfinite(b)])
    chex.assert_trees_all_close(a, b, rtol=unit, atol=unit * float(finite.max(initial=0.0)))


def assert_close(actual: Any, expected: Any, rtol: float = 1e-3, atol: float = 1e-6) -> None:
    """Compares a layer's output with the expected one by dtype, as Monolith does.

    Floats within `rtol` and `atol` (narrower floats than float32 within 2 %), all else exactly;
    NaN equals NaN.
    """
    actual = np.asarray(actual)
    if not jnp.issubdtype(actual.dtype, jnp.inexact):
        np.testing.assert_array_equal(actual, np.asarray(expected))
        return
    if actual.dtype.itemsize < 4:
        rtol, atol = max(rtol, 2e-2), max(atol, 2e-2)
    wide = np.complex128 if actual.dtype.kind == "c" else np.float64
    np.testing.assert_allclose(
        actual.astype(wide), np.asarray(expected).astype(wide), rtol=rtol, atol=atol
    )
