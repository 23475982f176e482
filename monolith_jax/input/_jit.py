"""What the kernels are made of: how they are compiled, and unaligned loads from a byte buffer.

numba checks no bounds, and the loads below are raw pointers, so the rule of every kernel is:
`load*` may start at any position up to the end of the data, and a buffer has SLACK bytes behind
that end. With NUMBA_BOUNDSCHECK=1 the loads check it (the tests run mutated records that way).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt
from llvmlite import binding, ir
from numba import config, njit, types
from numba.core.cgutils import pointer_add
from numba.extending import intrinsic

from monolith_jax._cache import compiled

SLACK = 32
"""Readable bytes that a buffer must have behind its data: the widest load, and some."""

Array: TypeAlias = npt.NDArray[Any]

_CHECKED = bool(config.BOUNDSCHECK)
_SOURCES = ("_jit", "_crc", "_wire", "_layout", "_columns", "_lists", "_example", "_walk")


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles an entry point: without the GIL, cached on disk where a folder can be written."""
    sources = [Path(__file__).with_name(f"{name}.py") for name in _SOURCES]
    decorator = partial(njit, nogil=True, _nrt=False)
    return compiled(decorator, function, sources, (_CHECKED, config.CPU_NAME))


# No reference counts (_nrt): no kernel makes an array, and counting views is what costs the most.
# alwaysinline in LLVM; numba's own inline="always" takes three times as long to compile.
inlined = njit(nogil=True, forceinline=True, _nrt=False)
helper = njit(nogil=True, _nrt=False)


def _loader(result: types.Type, bits: ir.Type) -> Any:
    @intrinsic
    def load(typing_context: Any, buffer: types.Type, at: types.Type) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            address = pointer_add(builder, array.data, arguments[1], bits.as_pointer())
            return builder.load(address, align=1)

        return result(buffer, types.int64), build

    return load


_load64 = _loader(types.int64, ir.IntType(64))
_load32 = _loader(types.uint32, ir.IntType(32))
_load_float = _loader(types.float32, ir.FloatType())


@inlined
def load64(buffer: Array, at: int) -> int:
    """Returns the eight bytes at `at` as int64, little-endian."""
    if _CHECKED and (at < 0 or at + 8 > buffer.size):
        raise IndexError("load64 out of bounds")
    return _load64(buffer, at)


@inlined
def load32(buffer: Array, at: int) -> int:
    """Returns the four bytes at `at` as a non-negative int64, little-endian."""
    if _CHECKED and (at < 0 or at + 4 > buffer.size):
        raise IndexError("load32 out of bounds")
    return types.int64(_load32(buffer, at))


@inlined
def load_float(buffer: Array, at: int) -> float:
    """Returns the four bytes at `at` as float32, bits unchanged."""
    if _CHECKED and (at < 0 or at + 4 > buffer.size):
        raise IndexError("load_float out of bounds")
    return _load_float(buffer, at)


@intrinsic
def trailing_zeros(typing_context, value):  # type: ignore[no-untyped-def]
    """Returns the number of zero bits below the lowest set bit of an int64 that is not 0."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


def has_crc_instruction() -> bool:
    """Whether the code is compiled for an x86-64 with SSE4.2, which has crc32c as an instruction.

    False under NUMBA_CPU_NAME: the machine that is compiled for is then not the one at hand.
    """
    if config.CPU_NAME or not binding.get_process_triple().startswith("x86_64"):
        return False
    return bool(binding.get_host_cpu_features().get("sse4.2"))


@intrinsic
def crc_instruction(typing_context, crc, word):  # type: ignore[no-untyped-def]
    """Returns the crc32c state after eight more bytes; only where `has_crc_instruction()`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        i64 = ir.IntType(64)
        function = builder.module.declare_intrinsic(
            "llvm.x86.sse42.crc32.64.64", fnty=ir.FunctionType(i64, [i64, i64])
        )
        return builder.call(function, arguments)

    return types.int64(types.int64, types.int64), build
