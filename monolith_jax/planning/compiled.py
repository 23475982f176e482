"""A task's train step, compiled for devices that are not there."""

import re
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from monolith_jax.planning.expected import expected_batch
from monolith_jax.planning.flops import product_flops
from monolith_jax.task import TaskConfig
from monolith_jax.training.program import Program


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one device's program.

    Attributes:
      state: the train state's shapes, with shardings.
      batch: the batch's, likewise.
      activations: bytes that the forward pass keeps for the backward pass, as jax writes them down;
        the compiler may keep less, by computing some again.
      arguments: bytes of the step's arguments: state and batch.
      temporary: bytes beside them while the step runs, activations among them.
      aliased: bytes of results that are written where the arguments were.
      fits: whether the program has room; if not, the three numbers above are 0 and `needs` holds
        the bytes that the compiler asked for.
      needs: bytes in all.
      flops: multiplications and additions, by XLA's count; those of matrix products alone if it
        does not fit.
      seconds: that compiling took.
      program: the program that the step is of.
      arguments_of: (state, window, batch), as shapes with shardings.
      step: as jax gives it; None if it does not fit.
    """

    state: Any
    batch: Any
    activations: int
    arguments: int
    temporary: int
    aliased: int
    fits: bool
    needs: int
    flops: float
    seconds: float
    program: Program
    arguments_of: tuple[Any, Any, Any]
    step: Any


def compile_step(task: TaskConfig, devices: list[Any]) -> Compiled:
    """Compiles the step that `train` runs, for one program over `devices`."""
    program = Program(task, devices)
    arguments, batch = program.abstract_checkpoint(), expected_batch(program)
    state = program.abstract_state()
    start = time.monotonic()
    given = state, arguments["window"], batch
    lowered = program.train_step.lower(*given)
    kept = _activations(program, state, batch) // len(devices)
    try:
        done = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needs = _asked_for(str(error))
        if needs is None:
            raise
        # jax 0.12 has no count of XLA's for a program that is lowered alone.
        flops = product_flops(program.train_step.trace(*given).jaxpr) / len(devices)
        seconds = time.monotonic() - start
        return Compiled(
            state, batch, kept, 0, 0, 0, False, needs, flops, seconds, program, given, None
        )
    memory: Any = done.memory_analysis()
    cost: Any = done.cost_analysis() or {}
    needs = (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return Compiled(
        state=state,
        batch=batch,
        activations=min(kept, memory.temp_size_in_bytes),
        arguments=memory.argument_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        fits=True,
        needs=needs,
        flops=float(cost.get("flops", 0.0)),
        seconds=time.monotonic() - start,
        program=program,
        arguments_of=given,
        step=done,
    )


def _activations(program: Any, state: Any, batch: Any) -> int:
    """Returns the bytes, over all devices, of what the backward pass needs of the forward pass.

    Those are the leaves of the function that `jax.vjp` returns, without what is an argument.
    """

    def run(state: Any, batch: Any) -> Any:
        rows = program.engine.gather(state.tables, batch["lookups"])

        def loss(params: Any, rows: Any) -> Any:
            embeddings = program.engine.combine(rows, batch["lookups"])
            return program._loss(params, embeddings, batch, jax.random.key(0))

        _, backward, _ = jax.vjp(loss, state.params, rows, has_aux=True)
        return backward

    given = {(x.shape, x.dtype) for x in jax.tree.leaves((state, batch))}
    leaves = jax.tree.leaves(jax.eval_shape(run, state, batch))
    return sum(
        x.size * x.dtype.itemsize
        for x in leaves
        if (x.shape, x.dtype) not in given and jnp.issubdtype(x.dtype, jnp.number)
    )


_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


_NO_ROOM = (
    r"Used ([0-9.]+)([KMGT]?) of [0-9.]+[KMGT]? hbm",
    r"memory required for [^(]*\(([0-9.]+)([KMGT]?)\) exceeds available HBM",
)


def _asked_for(message: str) -> int | None:
    """Returns the bytes of the compiler's complaint that memory does not suffice; None: another.

    Example:
      >>> _asked_for("Ran out of memory in memory space hbm. Used 30.5G of 15.75G hbm.")
      32749125632
      >>> _asked_for("the total memory required for HLO temporaries (48G) exceeds available HBM")
      51539607552
    """
    for pattern in _NO_ROOM:
        if found := re.search(pattern, message):
            return int(float(found[1]) * _UNITS[found[2] or "B"])
    return None
