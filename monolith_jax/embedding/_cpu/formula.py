"""A rule's formula in instructions for one row, translated from what jax traces of it.

Each operation is rounded by itself, as TensorFlow's CPU kernels do: nothing merges a product with a
sum here, so the detours by which exact rules keep XLA from it are left out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core
from llvmlite import ir
from numba.core.cgutils import get_or_insert_function

FLOAT = ir.FloatType()
_KINDS = {"float32": FLOAT, "int32": ir.IntType(32)}


class UntranslatedError(Exception):
    """A formula has an operation that is not translated; XLA's own loops then do the update."""


def translate(
    builder: ir.IRBuilder, closed: core.ClosedJaxpr, given: Sequence[ir.Value], dim: int
) -> list[ir.Value]:
    """Appends a formula's instructions, and returns its results.

    Args:
      builder: where they go.
      closed: of arrays [1, dim], which are vectors here, and of one number, [1, 1], [1] or [].
      given: its arguments, `<dim x float>` or float.
      dim: elements of a row.

    Raises:
      UntranslatedError: names the operation.
    """
    return _Translation(builder, dim).run(closed, given)


class _Translation:
    """Appends instructions to a builder."""

    def __init__(self, builder: ir.IRBuilder, dim: int) -> None:
        self.builder, self.dim = builder, dim

    def run(self, closed: core.ClosedJaxpr, given: Sequence[ir.Value]) -> list[ir.Value]:
        known: dict[Any, ir.Value] = {}
        known |= zip(closed.jaxpr.constvars, map(_constant, closed.consts), strict=True)
        known |= zip(closed.jaxpr.invars, given, strict=True)

        def value(atom: Any) -> ir.Value:
            return _constant(atom.val) if isinstance(atom, core.Literal) else known[atom]

        for equation in closed.jaxpr.eqns:
            results = self._equation(equation, [value(atom) for atom in equation.invars])
            known |= zip(equation.outvars, results, strict=True)
        return [value(atom) for atom in closed.jaxpr.outvars]

    def _equation(self, equation: Any, given: list[ir.Value]) -> list[ir.Value]:
        name, params = equation.primitive.name, equation.params
        if name in ("jit", "pjit"):
            return self.run(params["jaxpr"], given)
        if name == "custom_jvp_call":
            return self.run(params["call_jaxpr"], given)
        before, after = equation.invars[-1].aval, equation.outvars[0].aval
        if name in _SAME and before.dtype == after.dtype:
            return [self._vector(given[0]) if after.size > 1 else given[0]]
        if name == "reduce_sum" and params["axes"] == (before.ndim - 1,):
            return [self._sum(given[0])]
        if name == "bitcast_convert_type" and {before.dtype.name, after.dtype.name} <= set(_KINDS):
            return [self.builder.bitcast(given[0], self._kind(given[0], after.dtype))]
        if name == "convert_element_type" and (before.dtype, after.dtype) == (bool, "int32"):
            return [self.builder.zext(given[0], self._kind(given[0], after.dtype))]
        if name not in _OPERATIONS or before.dtype.name not in _KINDS:
            raise UntranslatedError(name)
        if any(_is_vector(x) for x in given):
            given = [self._vector(x) for x in given]
        return [_OPERATIONS[name](self.builder, given)]

    def _kind(self, like: ir.Value, dtype: Any) -> ir.Type:
        """Returns the type of numbers of another kind in the form of those given."""
        one = _KINDS[dtype.name]
        return ir.VectorType(one, self.dim) if _is_vector(like) else one

    def _vector(self, x: ir.Value) -> ir.Value:
        """Returns a vector of a number, or the vector that it is already."""
        if self.dim == 1 or _is_vector(x):
            return x
        kind = ir.VectorType(x.type, self.dim)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), x, _index(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.dim), [0] * self.dim)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)

    def _sum(self, x: ir.Value) -> ir.Value:
        """Returns the sum of a vector's elements, halves onto halves."""
        if self.dim == 1:
            return x
        parts = [self.builder.extract_element(x, _index(i)) for i in range(self.dim)]
        while len(parts) > 1:
            half = -(-len(parts) // 2)
            parts = [
                self.builder.fadd(parts[i], parts[half + i]) if half + i < len(parts) else parts[i]
                for i in range(half)
            ]
        return parts[0]


def _is_vector(x: ir.Value) -> bool:
    return isinstance(x.type, ir.VectorType)


def _index(i: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), i)


def _constant(number: Any) -> ir.Constant:
    found = np.asarray(number)
    if found.size != 1 or found.dtype.name not in _KINDS:
        raise UntranslatedError(f"a constant of {found.dtype} {found.shape}")
    return ir.Constant(_KINDS[found.dtype.name], found.item())


def _intrinsic(name: str) -> Callable[[ir.IRBuilder, list[ir.Value]], ir.Value]:
    def build(builder: ir.IRBuilder, given: list[ir.Value]) -> ir.Value:
        kind = given[0].type
        full = f"{name}.v{kind.count}f32" if _is_vector(given[0]) else f"{name}.f32"
        function = ir.FunctionType(kind, [kind] * len(given))
        return builder.call(get_or_insert_function(builder.module, function, full), given)

    return build


def _compare(sign: str) -> Callable[[ir.IRBuilder, list[ir.Value]], ir.Value]:
    def build(builder: ir.IRBuilder, given: list[ir.Value]) -> ir.Value:
        kind = given[0].type
        if getattr(kind, "element", kind) == FLOAT:
            return builder.fcmp_ordered(sign, *given)
        return builder.icmp_signed(sign, *given)

    return build


_SAME = ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "copy", "stop_gradient")
_OPERATIONS: dict[str, Callable[[ir.IRBuilder, list[ir.Value]], ir.Value]] = {
    "add": lambda builder, given: builder.fadd(*given),
    "sub": lambda builder, given: builder.fsub(*given),
    "mul": lambda builder, given: builder.fmul(*given),
    "div": lambda builder, given: builder.fdiv(*given),
    "neg": lambda builder, given: builder.fneg(*given),
    "sqrt": _intrinsic("llvm.sqrt"),
    "abs": _intrinsic("llvm.fabs"),
    "max": _intrinsic("llvm.maximum"),
    "min": _intrinsic("llvm.minimum"),
    "and": lambda builder, given: builder.and_(*given),
    "or": lambda builder, given: builder.or_(*given),
    "lt": _compare("<"),
    "le": _compare("<="),
    "gt": _compare(">"),
    "ge": _compare(">="),
    "select_n": lambda builder, given: builder.select(given[0], given[2], given[1]),
}
