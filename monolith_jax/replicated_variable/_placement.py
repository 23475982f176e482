"""How a value gets onto a variable's devices: checked, cast without loss, and sharing no memory."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from monolith_jax.replicated_variable._errors import VariableError
from monolith_jax.replicated_variable._operators import as_operand

REPLICA_AXIS = "replica"


def default_mesh() -> Mesh:
    """Returns the mesh of a variable that was given none: every device on one axis, "replica"."""
    return Mesh(np.array(jax.devices()), (REPLICA_AXIS,), axis_types=(AxisType.Auto,))


def under_trace() -> bool:
    """Returns whether jax is tracing (jit, grad, vmap, ...) in this thread right now."""
    return get_opaque_trace_state(convention="flax") != _eager_state()


@functools.cache
def _eager_state() -> Any:
    # A new thread never traces anything, wherever the first caller may be.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(get_opaque_trace_state, convention="flax").result()


def as_value(given: Any) -> Any:
    """Returns `given` as a jax or numpy array, or as the Python number that it is.

    Variables of any kind (ours, NNX's, TensorFlow's), lists and numbers are accepted. Python
    numbers stay what they are: they have no precision of their own.
    """
    given = as_operand(given)
    if not isinstance(given, jax.Array) and hasattr(given, "__jax_array__"):
        given = given.__jax_array__()
    if isinstance(given, jax.Array | bool | int | float | complex):
        return given
    return np.asarray(given)


def dtype_of(name: str, value: Any) -> np.dtype:
    """Returns the dtype that jax gives `value`: 64-bit host values become 32-bit unless x64 is on.

    A Python number gets its default dtype: int32, float32, complex64 or bool.

    Raises:
      VariableError: For strings, objects and random keys, which a variable cannot hold.
    """
    try:
        dtype = jnp.result_type(value)
    except TypeError as error:
        raise VariableError(
            f"variable {name!r} holds numbers and cannot take {np.asarray(value).dtype} values"
        ) from error
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        raise VariableError(
            f"variable {name!r} holds numbers and cannot take {dtype} values; keep random keys as "
            "jax.random.key_data(key)"
        )
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def is_lossless(source: np.dtype, target: np.dtype) -> bool:
    """Returns whether every number of dtype `source` is a number of dtype `target`.

    Example:
      >>> bf16, f32 = jnp.dtype("bfloat16"), jnp.dtype("float32")
      >>> is_lossless(bf16, f32), is_lossless(f32, bf16), is_lossless(jnp.dtype("int32"), f32)
      (True, False, False)
    """
    if source == target or _kind(source) < 1:
        return True
    if _kind(source) > _kind(target):
        return False
    source, target = _real(source), _real(target)
    if jnp.issubdtype(source, jnp.floating):
        have, goal = jnp.finfo(source), jnp.finfo(target)
        return bool(
            have.nmant <= goal.nmant and have.maxexp <= goal.maxexp and goal.minexp <= have.minexp
        )
    low, high = int(jnp.iinfo(source).min), int(jnp.iinfo(source).max)
    if jnp.issubdtype(target, jnp.integer):
        return bool(jnp.iinfo(target).min <= low and high <= jnp.iinfo(target).max)
    return high <= 2 ** (jnp.finfo(target).nmant + 1)


def _real(dtype: np.dtype) -> np.dtype:
    return np.empty(0, dtype).real.dtype


def check_fits(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Checks that `value` has `shape` and goes into `dtype` without loss.

    Arrays on devices are judged by their dtype alone; numbers and numpy arrays by their values, so
    that ``np.arange(3)`` goes into a float32 variable and 2**24 + 1 does not. numpy's float64 is
    read as jax reads it, as float32 unless x64 is on.

    Raises:
      VariableError: Naming the variable and both shapes, or both dtypes and the cast to write.
    """
    if np.shape(value) != shape:
        raise VariableError(
            f"variable {name!r} has shape {shape} and cannot take a value of shape "
            f"{np.shape(value)}; nothing is broadcast"
        )
    source = dtype_of(name, value)
    if isinstance(value, jax.Array):
        fits = is_lossless(source, dtype) or _weak_fits(value, source, dtype)
    else:
        fits = _host_fits(np.asarray(value), source, dtype)
    if not fits:
        raise VariableError(
            f"variable {name!r} has dtype {dtype} and would lose part of a value of dtype "
            f"{source}; if that is meant, cast it: value.astype({str(dtype)!r})"
        )


def _weak_fits(value: jax.Array, source: np.dtype, target: np.dtype) -> bool:
    """A weakly typed array, made of a Python number, takes the precision of what it meets."""
    weak = bool(jax.typeof(value).weak_type) and _kind(source) <= _kind(target)
    if weak and jnp.issubdtype(target, jnp.integer) and not isinstance(value, jax.core.Tracer):
        return _host_fits(np.asarray(value), source, target)
    return weak


def _host_fits(value: np.ndarray, source: np.dtype, target: np.dtype) -> bool:
    if _kind(source) > _kind(target):
        return False
    if value.ndim == 0 and value.dtype in (np.float64, np.complex128):
        return True  # a Python number has no precision of its own
    # Integers keep the 64 bits that jax would cut off silently; floats are read as jax reads them.
    seen = value if _kind(source) <= _kind(np.dtype(np.int32)) else value.astype(source)
    with np.errstate(all="ignore"):
        back = seen.astype(target).astype(seen.dtype)
    return np.array_equal(back, seen, equal_nan=True)


def _kind(dtype: np.dtype) -> int:
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    return next(i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind))


def check_sharding(name: str, shape: tuple[int, ...], sharding: NamedSharding) -> None:
    """Checks that `shape` can be cut up as `sharding` says.

    Raises:
      VariableError: Naming the variable, the shape and the sharding.
    """
    try:
        sharding.shard_shape(shape)
    except (ValueError, IndexError) as error:
        raise VariableError(
            f"variable {name!r} of shape {shape} cannot be laid out as {sharding.spec} on a mesh "
            f"of {dict(sharding.mesh.shape)}: {error}"
        ) from error


def place(value: Any, sharding: Sharding, dtype: np.dtype) -> jax.Array:
    """Returns a new array with `value` on every device that `sharding` names.

    `jax.device_put` alone hands back the same object for an equal sharding, and reuses the buffer
    of a device that already has the value for most other ones, as well as numpy's memory on a CPU:
    donating the result later would delete the caller's array. So the last step is a copy made by
    a compiled program, whose outputs never share memory with what it was given. It runs behind the
    caller's back, so what is numpy's, which the caller may change next, is waited for.
    """
    on_host = not isinstance(value, jax.Array)
    if on_host:
        value = np.asarray(value, dtype=dtype)
    if sharding.is_fully_addressable or not getattr(value, "is_fully_addressable", True):
        placed = jax.device_put(value, sharding)
    else:
        host = np.asarray(value)
        placed = jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
    copied = _copier(sharding, dtype)(placed)
    return jax.block_until_ready(copied) if on_host else copied


@functools.lru_cache(maxsize=256)
def _copier(sharding: Sharding, dtype: np.dtype) -> Callable[[jax.Array], jax.Array]:
    def copy(value: jax.Array) -> jax.Array:
        return jnp.array(value, dtype=dtype, copy=True)

    return jax.jit(copy, out_shardings=sharding)


def constrain(value: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Returns the traced `value` with the compiler told to lay it out as `sharding`.

    Inside `jax.shard_map` and `jax.pmap` the value is one device's own part and stays as it is.
    """
    if jax.sharding.get_abstract_mesh().manual_axes:
        return value
    if sharding.mesh.are_all_axes_explicit:
        return jax.sharding.reshard(value, sharding)
    return jax.lax.with_sharding_constraint(value, sharding)


def resolve_sharding(
    sharding: NamedSharding | PartitionSpec | None, mesh: Mesh | None, value: Any
) -> NamedSharding:
    """Returns the sharding that the constructor's arguments mean.

    The mesh is, in this order: the one given, that of a value which is already laid out on a mesh,
    all devices on one axis. The spec is ``P()``, a full copy on each device, unless given.
    """
    if isinstance(sharding, NamedSharding):
        if mesh is not None and mesh != sharding.mesh:
            raise VariableError("give mesh= or a NamedSharding, which has its own mesh, not both")
        return sharding
    if not isinstance(sharding, PartitionSpec | None):
        raise VariableError(
            f"sharding must be a NamedSharding or a PartitionSpec, not {type(sharding).__name__}"
        )
    if mesh is None:
        placed = None if isinstance(value, jax.core.Tracer) else getattr(value, "sharding", None)
        taken = placed.mesh if isinstance(placed, NamedSharding) else None
        mesh = taken if isinstance(taken, Mesh) else default_mesh()
    if not isinstance(mesh, Mesh):
        raise VariableError(f"mesh must be a jax.sharding.Mesh, not {type(mesh).__name__}")
    return NamedSharding(mesh, sharding or PartitionSpec())
