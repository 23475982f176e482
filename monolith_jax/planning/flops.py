"""Operations of matrix products, counted before a program is compiled."""

import math
from typing import Any

import jax
from jax.extend import core


def product_flops(jaxpr: Any) -> float:
    """Returns the multiplications and additions of all matrix products in a traced function.

    `2 m n k` for each `[m, k] x [k, n]`, over all devices. XLA counts more, every operation on
    every element, but only of what it could compile; of a training step these are nearly all.

    Args:
      jaxpr: as from `jax.make_jaxpr`, or `jax.jit(f).trace(...).jaxpr`.

    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.ones((4, 8)), jnp.ones((8, 2))
      >>> product_flops(jax.make_jaxpr(jax.jit(lambda a, b: jnp.sin(a) @ b))(a, b))
      128.0
    """
    inner = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    return sum((_flops(equation) for equation in inner.eqns), 0.0)


def _flops(equation: Any) -> float:
    if equation.primitive is jax.lax.dot_general_p:
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        size = math.prod(equation.outvars[0].aval.shape)
        return 2.0 * size * math.prod(left[axis] for axis in contracted)
    # What is mapped over devices is written once, for one of them.
    mesh = equation.params.get("mesh")
    times = mesh.size if equation.primitive.name == "shard_map" and mesh is not None else 1
    times *= equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
    return times * sum(product_flops(jaxpr) for jaxpr in _inner(equation.params))


def _inner(params: dict[str, Any]) -> list[Any]:
    """Returns the functions that an equation calls."""
    found = []
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr | core.Jaxpr):
                found.append(one)
    return found
