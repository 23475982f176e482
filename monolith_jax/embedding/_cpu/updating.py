"""An update in one go: a row and its slots are read, changed by their rule, and written.

XLA's own way is to read all rows' slots into arrays of their own, to compute on those, and to write
the results back. Here the rule's formula is compiled into a function of one row, which the kernel
calls where the row lies.
"""

import hashlib
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from llvmlite import binding, ir

from monolith_jax.embedding._cpu.formula import FLOAT, ROWS, STEP, UntranslatedError, translate
from monolith_jax.embedding._cpu.register import UPDATE, add_target, register
from monolith_jax.embedding._formula import step_of
from monolith_jax.optimizers import UpdateRule

MOST = 256
"""Elements of a row; a function of more would be thousands of instructions."""

_LONG = ir.IntType(64)


@lru_cache
def target_of(rule: UpdateRule, dim: int, width: int) -> str | None:
    """Returns the name by which XLA finds the update of a rule's rows; None: there is none.

    There is none for a rule that moves all rows, or whose formula has operations that `formula`
    does not know, and for rows of more than `MOST` elements.

    Args:
      rule: the rule.
      dim: elements of a row.
      width: elements that a row has room for; zeros are written behind the row.

    Example:
      >>> from monolith_jax.optimizers import Adagrad
      >>> target_of(Adagrad(), 16, 16) == target_of(Adagrad(), 8, 8)
      False
    """
    if rule.touches_all_rows or dim > MOST or not register():
        return None
    try:
        module = _module(rule, dim, width)
    except UntranslatedError:
        return None
    name = f"{UPDATE}_{hashlib.sha256(str(module).encode()).hexdigest()[:16]}"
    with _ONCE:  # rules that differ in their rates alone have one formula
        if name not in _KEPT:
            add_target(name, _compile(name, module))
    return name


def update(
    target: str,
    wide: Sequence[jax.Array],
    narrow: Sequence[jax.Array],
    index: jax.Array,
    gradient: jax.Array,
    numbers: Sequence[jax.Array],
    unit: int,
) -> tuple[Sequence[jax.Array], Sequence[jax.Array]]:
    """Returns the arrays after one step on some rows, in place where their memory is not needed.

    Args:
      target: from `target_of`.
      wide: the values and the slots like them, float32 [lines, line_width], rows of `unit`.
      narrow: the slots of one number per row, float32 [rows].
      index: int32 [U], rows, no two alike; what is beyond the table is left out.
      gradient: float32 [U, dim].
      numbers: float32 [] each: the learning rate and the rule's scalars.
      unit: see `wide`.
    """
    tables = [*wide, *narrow]
    shapes = [jax.ShapeDtypeStruct(table.shape, table.dtype) for table in tables]
    aliases = {i: i for i in range(len(tables))}
    # In the order of the names, which is the order that the kernel finds them in.
    attributes = {
        "count": len(tables),
        "rows": wide[0].size // unit,
        "size": unit * 4,
        "step": gradient.shape[1] * 4,
        "wide": len(wide),
    }
    call = jax.ffi.ffi_call(target, shapes, vmap_method="sequential", input_output_aliases=aliases)
    arguments = (*tables, index, gradient, jnp.stack(numbers))
    found = call(*arguments, **{name: np.int64(value) for name, value in attributes.items()})
    return found[: len(wide)], found[len(wide) :]


def _module(rule: UpdateRule, dim: int, width: int) -> ir.Module:
    """Returns a module of two functions: a row's `change`, and the `handler` that hands it on.

    `change(places, gradient, numbers)` takes the addresses of the row's places in the values and
    in each slot, wide ones first, of its gradient, and of the learning rate and the scalars.
    """
    module = ir.Module("update")
    change = ir.Function(module, ir.FunctionType(ir.VoidType(), [_LONG] * 3), "change")
    builder = ir.IRBuilder(change.append_basic_block())
    places, gradient, numbers = change.args
    vector = FLOAT if dim == 1 else ir.VectorType(FLOAT, dim)

    def at(address: Any, kind: Any, nth: int = 0) -> Any:
        return builder.gep(builder.inttoptr(address, kind.as_pointer()), [_LONG(nth)])

    def read(place: Any) -> Any:
        return builder.load(place, align=4)

    slots = sorted(rule.slots, key=lambda slot: slot.per_row)
    kinds = {"": vector} | {slot.name: FLOAT if slot.per_row else vector for slot in slots}
    where = {
        name: at(builder.load(at(places, _LONG, nth)), kind)
        for nth, (name, kind) in enumerate(kinds.items())
    }
    order = ["", *(slot.name for slot in rule.slots)]
    scalars = [read(at(numbers, FLOAT, nth)) for nth in range(1 + len(rule.scalars))]
    given = [STEP, read(at(gradient, vector)), *(read(where[name]) for name in order), *scalars]
    results = translate(builder, _traced(rule, dim), given, dim)
    for name, result in zip(order, results, strict=True):
        builder.store(result, where[name], align=4)
        if width > dim and kinds[name] is vector:
            behind = ir.VectorType(FLOAT, width - dim)
            first = builder.ptrtoint(where[name], _LONG)
            place = at(builder.add(first, _LONG(4 * dim)), behind)
            builder.store(ir.Constant(behind, [0.0] * (width - dim)), place, align=4)
    builder.ret_void()
    _add_handler(module, change)
    return module


def _add_handler(module: ir.Module, change: ir.Function) -> None:
    update = ir.Function(module, ir.FunctionType(_LONG, [_LONG] * 2), UPDATE)
    handler = ir.Function(module, ir.FunctionType(_LONG, [_LONG]), "handler")
    builder = ir.IRBuilder(handler.append_basic_block())
    builder.ret(builder.call(update, [handler.args[0], builder.ptrtoint(change, _LONG)]))


def _traced(rule: UpdateRule, dim: int) -> Any:
    """Returns the formula, as jax traces it for `ROWS` rows."""
    row, one, number = (
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((ROWS, dim), (ROWS, 1), ())
    )
    slots = [one if slot.per_row else row for slot in rule.slots]
    numbers = [number] * (1 + len(rule.scalars))
    nth = jax.ShapeDtypeStruct((), jnp.int32)
    formula = jax.make_jaxpr(lambda nth, *given: step_of(rule, nth)(*given))
    return formula(nth, row, row, *slots, *numbers)


_ONCE = threading.Lock()

_KEPT: dict[str, Any] = {}
"""What was compiled, by target: it lives as long as its engine."""


def _compile(name: str, module: ir.Module) -> int:
    """Returns the address of a module's `handler`, compiled for this machine."""
    target = binding.Target.from_default_triple()
    features = binding.get_host_cpu_features().flatten()
    machine = target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3, jit=True
    )
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    _KEPT[name] = engine
    return int(engine.get_function_address("handler"))
