"""Stochastic rounding to bfloat16, with bits that a resumed run draws again.

Between two neighbours of bfloat16 lie 2^16 steps of float32's last place. Adding a uniform 16-bit
integer to the bits of a float32 and cutting the low half off rounds up with exactly the probability
that makes the expected value the float32 itself:

    P(up) = (x - below) / (above - below),    E[round(x)] = x

The integer is a hash of (seed, stack, step, row, element) and of nothing else: it does not depend
on the batch, its padding or the number of devices. The step's two key words come from threefry and
are uniform; each hashing is a bijection of its 32-bit input, so that over the keys every element's
integer is exactly uniform, and the elements of a step are told apart by two rounds of it, which is
a few instructions where a generator's block would be a hundred.

References:
  Zamirai et al. (2020), Revisiting BFloat16 Training; Zhang et al. (2018), Training with
  Low-precision Embedding Tables. The hash: Wellons, "Prospecting for hash functions" (lowbias32).
"""

import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B9


def step_key(seed: int, stack: int, step: jax.Array) -> jax.Array:
    """Returns the key words of one stack's step, uint32 [2].

    Args:
      seed: of the run.
      stack: the stack's number.
      step: int32 [], updates made before.
    """
    # The generator is named: a default of another kind would draw other bits on another machine.
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), stack)
    return jax.random.bits(jax.random.fold_in(key, step), (2,), jnp.uint32)


def random_bits(key: jax.Array, row: jax.Array, element: jax.Array) -> jax.Array:
    """Returns uniform 32-bit integers, of the shape that `row` and `element` broadcast to.

    Args:
      key: uint32 [2], from `step_key`.
      row: integers, the physical rows.
      element: integers, the places in the row.
    """
    by_row = _mix(row.astype(jnp.uint32) ^ key[0])
    return _mix(by_row + element.astype(jnp.uint32) * jnp.uint32(_GOLDEN) ^ key[1])


def stochastic_round(x: jax.Array, bits: jax.Array) -> jax.Array:
    """Returns `x` as bfloat16, each element one of its two neighbours; unbiased.

    A value that bfloat16 holds is kept whatever the bits; what is not finite stays as it is.

    Args:
      x: float32.
      bits: uint32, of `x`'s shape; the upper 16 are used.

    Example:
      >>> x = jnp.float32([1.0, 1.0 + 2.0**-9])   # the second lies a quarter of the way up
      >>> ups = [stochastic_round(x, jnp.uint32([b << 30] * 2)).tolist() for b in range(4)]
      >>> ups
      [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0078125]]
    """
    integers = jax.lax.bitcast_convert_type(x, jnp.uint32)
    rounded = (integers + (bits >> 16)) & jnp.uint32(0xFFFF0000)
    near = jax.lax.bitcast_convert_type(rounded, jnp.float32)
    # A NaN's bits could be carried over into a number.
    return jnp.where(jnp.isfinite(x), near, x).astype(jnp.bfloat16)


def _mix(x: jax.Array) -> jax.Array:
    """Returns a bijective mixing of uint32 words."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
