"""The few instructions that Python has no word for, for kernels that numba compiles.

Addresses are int64, and so is all that is read: `load(address, nth)` and `load32` read the nth word
of 64 or 32 bits from there on. Nothing is checked: who calls them keeps to the bounds.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

# No reference counts, and no checks of divisors: no kernel makes an array, or raises.
OPTIONS = {"_nrt": False, "error_model": "numpy"}
inlined = njit(nogil=True, forceinline=True, **OPTIONS)

_LONG = ir.IntType(64)
_POINTER = ir.IntType(8).as_pointer()
_NO = ir.Constant(ir.IntType(1), 0)


def _call(
    builder: Any, name: str, result: ir.Type, arguments: list[Any], of: Sequence[ir.Type] = ()
) -> Any:
    """Calls a function of C, or one of LLVM's, whose name LLVM completes by the types `of`."""
    kind = ir.FunctionType(result, [x.type for x in arguments])
    if of:
        function = builder.module.declare_intrinsic(name, of, kind)
    else:
        function = get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


def _loader(bits: int) -> Any:
    @intrinsic
    def load(typing_context, address, nth):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            word = builder.load(_place(builder, *arguments, bits), align=bits // 8)
            return builder.sext(word, _LONG) if bits < 64 else word

        return types.int64(types.int64, types.int64), build

    return load


def _place(builder: Any, address: Any, nth: Any, bits: int) -> Any:
    return builder.gep(builder.inttoptr(address, ir.IntType(bits).as_pointer()), [nth])


load = _loader(64)
load32 = _loader(32)


@intrinsic
def store(typing_context, address, nth, value):  # type: ignore[no-untyped-def]
    """Writes the nth word of 64 bits from an address on."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.store(arguments[2], _place(builder, *arguments[:2], 64), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


@intrinsic
def prefetch(typing_context, address):  # type: ignore[no-untyped-def]
    """Asks for the cache line at an address, and does not wait for it; any address will do."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        read, keep, data = (ir.Constant(ir.IntType(32), x) for x in (0, 3, 1))
        address = builder.inttoptr(arguments[0], _POINTER)
        _call(builder, "llvm.prefetch", ir.VoidType(), [address, read, keep, data], [_POINTER])
        return context.get_dummy_value()

    return types.void(types.int64), build


@intrinsic
def copy(typing_context, to, start, count):  # type: ignore[no-untyped-def]
    """Copies bytes between places that do not overlap."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        to, start = (builder.inttoptr(x, _POINTER) for x in arguments[:2])
        given = [to, start, arguments[2], _NO]
        _call(builder, "llvm.memcpy", ir.VoidType(), given, [_POINTER, _POINTER, _LONG])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


@intrinsic
def clear(typing_context, to, count):  # type: ignore[no-untyped-def]
    """Writes zeros."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        zero = ir.Constant(ir.IntType(8), 0)
        given = [builder.inttoptr(arguments[0], _POINTER), zero, arguments[1], _NO]
        _call(builder, "llvm.memset", ir.VoidType(), given, [_POINTER, _LONG])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


def _adder(count: int) -> Any:
    @intrinsic
    def add(typing_context, to, start):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            kind = ir.VectorType(ir.FloatType(), count).as_pointer()
            to, start = (builder.inttoptr(x, kind) for x in arguments)
            total = builder.fadd(builder.load(to, align=4), builder.load(start, align=4))
            builder.store(total, to, align=4)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), build

    return add


_add_1, _add_8 = _adder(1), _adder(8)


@inlined
def add(to, start, count):  # type: ignore[no-untyped-def]
    """Adds float32 numbers to those of another place; the two do not overlap."""
    whole = count // 8 * 8
    for nth in range(0, whole, 8):
        _add_8(to + 4 * nth, start + 4 * nth)
    for nth in range(whole, count):
        _add_1(to + 4 * nth, start + 4 * nth)


@intrinsic
def fetch_add(typing_context, address, value):  # type: ignore[no-untyped-def]
    """Adds to a word that several threads have, at once; returns what it was before."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        address = builder.inttoptr(arguments[0], _LONG.as_pointer())
        return builder.atomic_rmw("add", address, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), build


@intrinsic
def call(typing_context, function, argument):  # type: ignore[no-untyped-def]
    """Calls the C function at an address with one word; returns the word that it gives."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(_POINTER, [_POINTER]).as_pointer()
        function = builder.inttoptr(arguments[0], kind)
        found = builder.call(function, [builder.inttoptr(arguments[1], _POINTER)])
        return builder.ptrtoint(found, _LONG)

    return types.int64(types.int64, types.int64), build


@intrinsic
def apply(typing_context, function, first, second, third):  # type: ignore[no-untyped-def]
    """Calls the C function at an address with three words; it gives nothing."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(ir.VoidType(), [_LONG] * 3).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), build


@intrinsic
def allocate(typing_context, count):  # type: ignore[no-untyped-def]
    """Returns the address of so many bytes, or 0; `release` gives them back."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ptrtoint(_call(builder, "malloc", _POINTER, [arguments[0]]), _LONG)

    return types.int64(types.int64), build


@intrinsic
def release(typing_context, address):  # type: ignore[no-untyped-def]
    """Gives back what `allocate` gave."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _call(builder, "free", ir.VoidType(), [builder.inttoptr(arguments[0], _POINTER)])
        return context.get_dummy_value()

    return types.void(types.int64), build


def address_of(symbol: str) -> Any:
    """Returns a kernel that gives the address of a symbol, as each process has it."""

    @intrinsic
    def address(typing_context):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            kind = ir.FunctionType(ir.VoidType(), [_POINTER])
            function = get_or_insert_function(builder.module, kind, symbol)
            return builder.ptrtoint(function, _LONG)

        return types.int64(), build

    return address
