"""The arithmetic of one step: the number type it runs in, and products that stay products."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from monolith_jax.optimizers._fusion import fuses_outputs
from monolith_jax.optimizers._schedules import LearningRate


def wide_enough(*dtypes: Any) -> Any:
    """Returns what to compute with these float dtypes in: float32, or float64 if one of them is.

    Example:
      >>> wide_enough(jnp.bfloat16, jnp.float32).__name__
      'float32'
    """
    return jnp.float64 if any(jnp.dtype(d).itemsize > 4 for d in dtypes) else jnp.float32


@dataclass(frozen=True)
class Arithmetic:
    """What a formula computes with: constants in one dtype, products rounded on their own.

    Attributes:
      dtype: the dtype of the whole formula, float32 or float64.
      step: int32 [], the number of updates made before this one.
      exact: round every product by itself, as TensorFlow's CPU kernels do. XLA would contract
        `a * b + c` into one fused multiply-add, which rounds once, and turn `a / sqrt(b)` into
        `a * rsqrt(b)`.
    """

    dtype: Any
    step: jax.Array
    exact: bool

    def number(self, value: Any) -> jax.Array:
        """Returns a hyperparameter, a Python number or a traced scalar, in `dtype`."""
        return jnp.asarray(value).astype(self.dtype)

    def rate(self, learning_rate: LearningRate) -> jax.Array:
        """Returns the learning rate of this step in `dtype`, from a number or a schedule."""
        if callable(learning_rate):
            learning_rate = learning_rate(self.step)
        return self.number(learning_rate)

    def one_minus(self, value: Any) -> jax.Array:
        """Returns `1 - value`, subtracted in `dtype` as TF's kernels do."""
        return self.number(1.0) - self.number(value)

    def product(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Returns `a * b`, rounded on its own if `exact`."""
        if self.exact:
            # XLA moves a constant factor past the one that `rounded` multiplies with.
            a, b = (_opaque(x, self._zero()) if x.ndim == 0 else x for x in (a, b))
        return self.rounded(a * b)

    def rounded(self, x: jax.Array) -> jax.Array:
        """Returns `x`; if `exact`, XLA cannot merge what computes it with what reads it.

        It is multiplied by a one that the compiler cannot know: what is merged with the sum that
        follows is this product, whose rounding is none, so it costs no instruction.
        """
        return x * _opaque(jnp.ones([], x.dtype), self._zero()) if self.exact else x

    def again(self, x: jax.Array) -> jax.Array:
        """Returns `x`, computed anew where it is cheap, rather than kept from its first use."""
        return _opaque(x, self._zero())

    def after(self, x: jax.Array, first: jax.Array) -> jax.Array:
        """Returns `x`, of which XLA has to believe that it is computed from `first`, elementwise.

        For an array that is written in place after all the reads of its old self, where XLA
        would keep a copy of the old one. It is a division by one: XLA:CPU repeats cheap
        operations in every loop that needs them, but divides once and reads the quotient. Where
        all outputs are written by one loop there is nothing to order.
        """
        if fuses_outputs():
            return x
        zero = lax.bitcast_convert_type(first, self._integer()) & self._zero()
        return x / _opaque(jnp.ones_like(x), zero)

    def _integer(self) -> Any:
        return jnp.int64 if jnp.dtype(self.dtype).itemsize == 8 else jnp.int32

    def _zero(self) -> jax.Array:
        """Returns `step < 0`, a zero that no compiler can know to be one."""
        return (self.step < 0).astype(self._integer())


@jax.custom_jvp
def _opaque(x: jax.Array, zero: jax.Array) -> jax.Array:
    """Returns `x` with its bits or-ed with a zero, a detour of one instruction.

    Twice is once, where two xors would cancel. `lax.optimization_barrier` splits the loop
    instead, three times slower on CPU, and `lax.reduce_precision` is optimised away.
    """
    bits = lax.bitcast_convert_type(x, zero.dtype) | zero
    return lax.bitcast_convert_type(bits, x.dtype)


@_opaque.defjvp
def _opaque_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    # Bits have no derivative, the value that they stand for has.
    return _opaque(*primals), tangents[0]
