"""An update's outputs in one loop over memory, where XLA:CPU is told to fuse them.

By itself XLA:CPU gives every output a loop of its own, and Adam goes over memory 10 times (m: g, m
-> m; v: g, v -> v; w: m, v, w -> w). With the flag `MULTI_OUTPUT_FUSION` it merges loops that read
the same arrays, but never one that reads what another writes. So each output is computed from the
arrays of before the step alone, once more for each: none reads another, all become one loop, and
Adam goes over memory 7 times. Some numbers are computed twice for it, in registers.

Without the flag this would be the wrong program: an array could not be overwritten while another
loop still needs it, and XLA would copy it. So it is done with the flag alone.
"""

import os
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

T = TypeVar("T")

MULTI_OUTPUT_FUSION = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion=true"
"""For the environment variable `XLA_FLAGS`: dense updates on CPU in one loop over memory.

XLA reads the variable when jax first needs a device; a change after that must not be made. Updates
are the same to the last bit with and without it (`exact`). The pass is off by default, and XLA's
compiler aborts in it where two scatters have the same indices: tables here keep theirs apart.

Example:
  >>> MULTI_OUTPUT_FUSION
  '--xla_backend_extra_options=xla_cpu_use_multi_output_fusion=true'
"""


def fuses_outputs() -> bool:
    """Returns whether `XLA_FLAGS` has `MULTI_OUTPUT_FUSION`, by itself or among other options.

    Its value does not count: XLA takes the option for set where it stands, `=false` too.
    """
    flag, option, _ = MULTI_OUTPUT_FUSION.split("=")
    given = [f.partition("=")[2] for f in os.environ.get("XLA_FLAGS", "").split() if flag in f]
    return any(one.partition("=")[0] == option for some in given for one in some.split(","))


def apart(tree: T, step: jax.Array, number: int) -> T:
    """Returns the arrays of `tree`, which XLA:CPU takes for others than those given.

    Args:
      tree: of float32 or float64 arrays.
      step: int32 [], not known when the program is compiled.
      number: 0 to 31; arrays with different numbers are different to XLA.

    Example:
      >>> apart({"w": jnp.ones(2)}, jnp.int32(0), 1)["w"].tolist()
      [1.0, 1.0]
    """
    return jax.tree.map(
        lambda x: lax.platform_dependent(
            x, step, cpu=lambda x, step: _selected(x, step, number), default=lambda x, step: x
        ),
        tree,
    )


def _selected(x: jax.Array, step: jax.Array, number: int) -> jax.Array:
    # A shift by all the bits or more is zero, which XLA does not fold.
    never = lax.shift_right_logical(step, jnp.int32(32 + number)) != 0
    return jnp.where(never, jnp.zeros([], x.dtype), x)
