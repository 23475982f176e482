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
ROWS = 7919
"""What a formula is traced for: a number that tells rows from anything else that has a size."""

STEP: Any = object()
"""Stands for the number of updates made before; a formula may only ask whether it is negative."""

_KINDS = {"float32": FLOAT, "int32": ir.IntType(32)}


class UntranslatedError(Exception):
    """A formula has an operation that is not translated; XLA's own loops then do the update."""


def translate(
    builder: ir.IRBuilder, closed: core.ClosedJaxpr, given: Sequence[ir.Value], dim: int
) -> list[ir.Value]:
    """Appends a formula's instructions, and returns its results.

    Args:
      builder: where they go.
      closed: of arrays [ROWS, dim], which are vectors here, and of numbers, [ROWS, 1] or [].
      given: its arguments, `<dim x float>`, float, or `STEP`.
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
            if isinstance(atom, core.Literal):
                kind: Any = atom.aval
                return _constant(np.asarray(atom.val, kind.dtype))
            return known[atom]

        for equation in closed.jaxpr.eqns:
            results = self._equation(equation, [value(atom) for atom in equation.invars])
            known |= zip(equation.outvars, results, strict=True)
        return [value(atom) for atom in closed.jaxpr.outvars]

    def _equation(self, equation: Any, given: list[ir.Value]) -> list[ir.Value]:
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            return self.run(params[_CALLS[name]], given)
        if not equation.invars:
            raise UntranslatedError(name)
        if any(x is STEP for x in given):
            return [self._negative(equation)]
        first, last, after = (
            x.aval for x in (equation.invars[0], equation.invars[-1], equation.outvars[0])
        )
        of_rows, to_rows = self._by_element(last), self._by_element(after)
        if name in _SAME and last.dtype == after.dtype:
            return [self._vector(given[0]) if to_rows else given[0]]
        if name == "reduce_sum" and last.dtype == "float32" and after.shape[:1] == (ROWS,):
            return [self._sum(given[0]) if of_rows and not to_rows else given[0]]
        if cast := _CASTS.get((name, last.dtype.name, after.dtype.name)):
            return [cast(self.builder, given[0], self._kind(given[0], after.dtype))]
        operation = _OPERATIONS.get((name, first.dtype.name, last.dtype.name))
        if operation is None:
            raise UntranslatedError(f"{name} of {last.dtype}")
        if any(_is_vector(x) for x in given):
            given = [self._vector(x) for x in given]
        return [operation(self.builder, *given)]

    def _negative(self, equation: Any) -> ir.Value:
        """Returns whether the step is negative, which it is not."""
        limit = equation.invars[-1]
        if equation.primitive.name != "lt" or getattr(limit, "val", None) != 0:
            raise UntranslatedError(f"{equation.primitive.name} of the step")
        return ir.Constant(ir.IntType(1), 0)

    def _by_element(self, array: Any) -> bool:
        """Returns whether an array has a number for each element of a row; else it is one a row.

        Raises:
          UntranslatedError: it has other numbers than a row's.
        """
        each = array.size // ROWS if array.shape[:1] == (ROWS,) else array.size
        if each == 1:
            return False
        if array.shape[:1] != (ROWS,) or each != self.dim:
            raise UntranslatedError(f"an array {array.shape}")
        return True

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


def _intrinsic(name: str) -> Callable[..., ir.Value]:
    def build(builder: ir.IRBuilder, *given: ir.Value) -> ir.Value:
        kind = given[0].type
        full = f"{name}.v{kind.count}f32" if _is_vector(given[0]) else f"{name}.f32"
        function = ir.FunctionType(kind, [kind] * len(given))
        return builder.call(get_or_insert_function(builder.module, function, full), given)

    return build


def _select(builder: ir.IRBuilder, which: ir.Value, no: ir.Value, yes: ir.Value) -> ir.Value:
    return builder.select(which, yes, no)


def _compare(build: Any, sign: str) -> Callable[..., ir.Value]:
    return lambda builder, *given: build(builder, sign, *given)


_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Operations that are programs, and where those are."""

_SAME = ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "copy", "stop_gradient")
"""Operations that change no number."""

_CASTS: dict[tuple[str, str, str], Callable[..., ir.Value]] = {
    ("bitcast_convert_type", "float32", "int32"): ir.IRBuilder.bitcast,
    ("bitcast_convert_type", "int32", "float32"): ir.IRBuilder.bitcast,
    ("convert_element_type", "bool", "int32"): ir.IRBuilder.zext,
}
"""By name, and the dtypes before and after."""

_FLOATS: dict[str, Callable[..., ir.Value]] = {
    "add": ir.IRBuilder.fadd,
    "sub": ir.IRBuilder.fsub,
    "mul": ir.IRBuilder.fmul,
    "div": ir.IRBuilder.fdiv,
    "neg": ir.IRBuilder.fneg,
    "sqrt": _intrinsic("llvm.sqrt"),
    "abs": _intrinsic("llvm.fabs"),
    "max": _intrinsic("llvm.maximum"),
    "min": _intrinsic("llvm.minimum"),
}
_SIGNS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_OPERATIONS = (
    {(name, "float32", "float32"): build for name, build in _FLOATS.items()}
    | {
        (name, "float32", "float32"): _compare(ir.IRBuilder.fcmp_ordered, sign)
        for name, sign in _SIGNS.items()
    }
    | {
        (name, "int32", "int32"): _compare(ir.IRBuilder.icmp_signed, sign)
        for name, sign in _SIGNS.items()
    }
    | {("and", kind, kind): ir.IRBuilder.and_ for kind in ("bool", "int32")}
    | {("or", kind, kind): ir.IRBuilder.or_ for kind in ("bool", "int32")}
    | {("select_n", "bool", "float32"): _select}
)
"""By name, and the dtypes of the first and the last operand."""
