"""`ReplicatedVariable`: a name, an array and a sharding."""

from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import GetAttrKey

from monolith_jax.replicated_variable import _placement as placement
from monolith_jax.replicated_variable import _replicas as replicas
from monolith_jax.replicated_variable._errors import VariableError
from monolith_jax.replicated_variable._graph_era import GraphEraMembers


class ReplicatedVariable(GraphEraMembers):
    """A named value that all devices hold, or hold in parts, as one `jax.Array`.

    It is used like the array itself, in any ``jax.numpy`` expression and with any operator
    (``jax.lax`` takes arrays alone: give it `value`), and is a pytree with one leaf, so that it
    passes through ``jit``, ``grad``, ``scan``, optax and a checkpoint. Outside of traces `assign`,
    `assign_add` and `assign_sub` change it in place, on every device; inside a trace, where
    nothing can be changed, `replace` returns a new one.

    The variable never shares memory with an array that it was given, and `read_value` returns a
    snapshot: donating the variable to a compiled step (``donate_argnums``) invalidates neither.
    `value`, `handle` and ``jnp.asarray(variable)`` are the live array and do end with it.

    Args:
      name: The name in messages and representations. Not in the pytree's paths.
      variables: As in Monolith, a list with one value per replica, which must be equal bit for bit
        (see `from_replicas` for others); or one value: an array, a number, a variable.
      sharding: A `NamedSharding`, or a `PartitionSpec` of `mesh`. By default ``P()``: each device
        has a full copy.
      mesh: The devices. By default the mesh of `variables` if it is an array with a NamedSharding,
        else all devices on one axis named "replica".
      dtype: The dtype that the variable has from now on. By default that of `variables` as jax
        reads it: float32 for numpy's float64 unless x64 is on.

    Raises:
      VariableError: If the value cannot be held in `dtype` without loss or laid out as `sharding`,
        if replicas differ, or if processes bring different values. With several processes the
        constructor, `assign` and `check_replicas` are collective calls: every process makes them.

    Example:
      >>> import jax.numpy as jnp
      >>> v = ReplicatedVariable("bias", jnp.zeros(3))
      >>> v.assign([1.0, 2.0, 3.0])
      >>> v + 1
      Array([2., 3., 4.], dtype=float32)
      >>> v.assign([1.0, 2.0])
      Traceback (most recent call last):
      ...
      monolith_jax.replicated_variable._errors.VariableError: variable 'bias' has shape (3,) and
      cannot take a value of shape (2,); nothing is broadcast

    Source: ``monolith/core/tpu_variable.py``, which follows TensorFlow's
    ``tensorflow/python/tpu/tpu.py``. Different there: `assign` outside of a TPU context wrote the
    first copy alone.
    """

    _name: str
    _value: Any
    _sharding: NamedSharding

    def __init__(
        self,
        name: str,
        variables: Any,
        *,
        sharding: NamedSharding | PartitionSpec | None = None,
        mesh: Mesh | None = None,
        dtype: Any = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise VariableError(f"a variable's name must be a non-empty string, not {name!r}")
        if isinstance(variables, list | tuple):
            variables = replicas.reduce_replicas(name, variables, "equal")
        value = placement.as_value(variables)
        given = placement.dtype_of(name, value)
        self._name = name
        self._sharding = placement.resolve_sharding(sharding, mesh, value)
        self._value = self._accept(value, np.shape(value), given if dtype is None else dtype)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _register(cls)

    @classmethod
    def from_replicas(
        cls,
        name: str,
        values: Any,
        *,
        reduce: replicas.Reduce = "mean",
        sharding: NamedSharding | PartitionSpec | None = None,
        mesh: Mesh | None = None,
    ) -> Self:
        """Returns a variable made of values that may differ between replicas.

        Args:
          name: As in the constructor.
          values: A list with one value per replica of this process, or an array
            ``[replicas, ...]`` as `jax.pmap` returns it. The replicas of all processes count, and
            each process must give equally many; a global array has them all.
          reduce: "mean" (float dtypes; computed in float32 at least), "sum", "first" (replica 0 of
            process 0), or "equal", which raises if they are not.
          sharding: As in the constructor.
          mesh: As in the constructor.

        Raises:
          VariableError: For replicas of different shapes, the mean of integers, an unknown
            `reduce`.

        Example:
          >>> float(ReplicatedVariable.from_replicas("loss", [1.0, 3.0], reduce="mean"))
          2.0
        """
        value = replicas.reduce_replicas(name, values, reduce)
        return cls(name, value, sharding=sharding, mesh=mesh)

    # -- what it is --------------------------------------------------------------------------

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name."""
        return self._name

    @property
    def value(self) -> jax.Array:
        """The live array, a tracer inside a trace. Ends when the variable is donated.

        Raises:
          VariableError: If the variable was donated to a compiled function.
        """
        value = self._value
        concrete = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
        if concrete and value.is_deleted():
            raise VariableError(
                f"the value of variable {self._name!r} was donated to a compiled function "
                "(donate_argnums); go on with the variable that it returned, or assign() anew"
            )
        return value

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """The dtype; it never changes."""
        return self._value.dtype

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The shape of the whole value, without any replica dimension."""
        return self._value.shape

    @property
    def sharding(self) -> NamedSharding:
        """Where the value lives, and where every assigned value will be put."""
        return self._sharding

    def __repr__(self) -> str:
        mesh = self._sharding.mesh
        what = f"{self._name!r}, {getattr(self._value, 'dtype', type(self._value).__name__)}"
        shape = list(getattr(self._value, "shape", ()))
        return f"ReplicatedVariable({what}{shape}, {self._sharding.spec} on {mesh.size} devices)"

    # -- reading -----------------------------------------------------------------------------

    def read_value(self) -> jax.Array:
        """Returns a snapshot: a new array on the same devices that later changes do not touch.

        Under a trace, the traced value. `value` reads without the copy.
        """
        value = self.value
        if isinstance(value, jax.core.Tracer) or placement.under_trace():
            return value
        return placement.place(value, value.sharding, self.dtype)

    def replica(self, i: int) -> jax.Array:
        """Returns a copy of what device `i` holds, counted in the order of the mesh.

        The whole value if the variable is replicated, that device's part otherwise.

        Raises:
          VariableError: If there is no device `i`, or it belongs to another process.
        """
        self._refuse_trace("replica")
        devices = list(self._sharding.mesh.devices.flat)
        if not 0 <= i < len(devices):
            raise VariableError(
                f"variable {self._name!r} has replicas 0 to {len(devices) - 1}, no replica {i}"
            )
        parts = {shard.device: shard.data for shard in self.value.addressable_shards}
        if devices[i] not in parts:
            raise VariableError(
                f"replica {i} of variable {self._name!r} is on {devices[i]}, which belongs to "
                f"process {devices[i].process_index}; this is process {jax.process_index()}"
            )
        return jnp.array(parts[devices[i]], copy=True)

    def stacked(self) -> jax.Array:
        """Returns a new array ``[local devices, *shape]`` with a full copy on each device.

        The form that `jax.pmap` takes and returns; back in with `assign_replicas`.
        """
        self._refuse_trace("stacked")
        return replicas.stacked_form(self.value, self._sharding)

    def check_replicas(self) -> None:
        """Checks that all devices, in all processes, hold the same bits.

        Raises:
          VariableError: In every process, naming the devices that differ from the others.
        """
        self._refuse_trace("check_replicas")
        replicas.check_equal(self._name, self.value)

    # -- writing -----------------------------------------------------------------------------

    def assign(
        self, value: Any, use_locking: Any = None, name: Any = None, read_value: bool = False
    ) -> jax.Array | None:
        """Sets the value on every device.

        Args:
          value: Anything of the variable's shape that its dtype can hold without loss.
          use_locking: Ignored, as in Monolith: an assignment is always whole.
          name: Ignored: there is no operation to name.
          read_value: Whether to return the new value. False returns None, as TensorFlow does
            outside of graphs.

        Raises:
          VariableError: For a wrong shape, a dtype that would lose something, under a trace, or if
            the processes bring different values.
        """
        del use_locking, name
        self._refuse_trace("assign")
        self._value = self._accept(placement.as_value(value), self.shape, self.dtype)
        return self.read_value() if read_value else None

    def assign_add(
        self, delta: Any, use_locking: Any = None, name: Any = None, read_value: bool = True
    ) -> jax.Array | None:
        """Adds `delta`, of the variable's shape, on every device; see `assign`.

        Returns the new value unless `read_value` is False.
        """
        del use_locking, name
        self._refuse_trace("assign_add")
        delta = self._accept(placement.as_value(delta), self.shape, self.dtype)
        return self.assign(jnp.add(self.value, delta), read_value=read_value)

    def assign_sub(
        self, delta: Any, use_locking: Any = None, name: Any = None, read_value: bool = True
    ) -> jax.Array | None:
        """Subtracts `delta`, of the variable's shape, on every device; see `assign`.

        Returns the new value unless `read_value` is False.
        """
        del use_locking, name
        self._refuse_trace("assign_sub")
        delta = self._accept(placement.as_value(delta), self.shape, self.dtype)
        return self.assign(jnp.subtract(self.value, delta), read_value=read_value)

    def assign_replicas(self, values: Any, *, reduce: replicas.Reduce = "equal") -> None:
        """Sets the value from one value per replica; see `from_replicas`.

        Raises:
          VariableError: As in `assign`, and if the replicas differ and `reduce` is "equal".

        Example:
          >>> v = ReplicatedVariable("v", 1.0)
          >>> v.assign_replicas(jax.pmap(lambda x: 2 * x)(v.stacked()))
          >>> float(v)
          2.0
        """
        self._refuse_trace("assign_replicas")
        self.assign(replicas.reduce_replicas(self._name, values, reduce))

    def replace(self, value: Any) -> Self:
        """Returns a variable with the same name and sharding, and a new value; in a trace or not.

        Raises:
          VariableError: For a wrong shape, or a dtype that would lose something.

        Example:
          >>> v = ReplicatedVariable("v", 1.0)
          >>> step = jax.jit(lambda v: v.replace(v - 0.5 * jax.grad(lambda v: v * v)(v)))
          >>> float(step(v))
          0.0
        """
        value = self._accept(placement.as_value(value), self.shape, self.dtype)
        return _unflatten(type(self), (self._name, self._sharding), [value])

    # -- inside ------------------------------------------------------------------------------

    def _accept(self, value: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """Returns `value` checked, cast and laid out, in memory of its own."""
        dtype = np.dtype(jax.dtypes.canonicalize_dtype(dtype))
        placement.check_fits(self._name, value, shape, dtype)
        if isinstance(value, jax.core.Tracer) or placement.under_trace():
            cast = jax.lax.convert_element_type(value, dtype)
            return placement.constrain(cast, self._sharding)
        placement.check_sharding(self._name, shape, self._sharding)
        here = getattr(value, "is_fully_addressable", True)
        if here and not self._sharding.is_fully_addressable:
            replicas.check_processes_agree(self._name, np.asarray(value))
        return placement.place(value, self._sharding, dtype)

    def _refuse_trace(self, what: str) -> None:
        if isinstance(self._value, jax.core.Tracer) or placement.under_trace():
            raise VariableError(
                f"variable {self._name!r}: {what}() under a jax trace (jit, grad, vmap, scan, ...) "
                "would happen at tracing time only; return variable.replace(new_value) from the "
                "traced function instead, or call it outside"
            )

    def __copy__(self) -> Self:
        return _unflatten(type(self), (self._name, self._sharding), [self._value])

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Self:
        del memo
        return _unflatten(type(self), (self._name, self._sharding), [self.read_value()])


def _unflatten(cls: type, static: tuple[str, NamedSharding], leaves: Any) -> Any:
    # No checks: jax rebuilds pytrees with whatever its transformations put into the leaves.
    variable: Any = object.__new__(cls)
    variable._name, variable._sharding = static
    (variable._value,) = leaves
    return variable


def _register(cls: type[ReplicatedVariable]) -> None:
    def static(variable: ReplicatedVariable) -> tuple[str, NamedSharding]:
        return variable._name, variable._sharding

    jax.tree_util.register_pytree_with_keys(
        cls,
        lambda v: (((GetAttrKey("value"), v._value),), static(v)),
        lambda aux, leaves: _unflatten(cls, aux, leaves),
        lambda v: ((v._value,), static(v)),
    )


_register(ReplicatedVariable)
