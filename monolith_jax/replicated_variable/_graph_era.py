"""The members of Monolith's class that TensorFlow's graphs gave a meaning: mapped, or refused.

Mapped means that code which uses the member keeps working with the same intent. Refused means that
there is nothing of that kind in jax; the error says what took its place.
"""

from typing import Any, NoReturn, Self

import jax
import jax.numpy as jnp

from monolith_jax.replicated_variable._errors import GraphEraError
from monolith_jax.replicated_variable._operators import ArrayOperators


class Shape(tuple[int, ...]):
    """A shape with the two methods of TensorFlow's ``TensorShape`` that scripts call.

    Example:
      >>> Shape((2, 3)).as_list(), Shape((2, 3)).ndims, Shape((2, 3)) == (2, 3)
      ([2, 3], 2, True)
    """

    __slots__ = ()

    def as_list(self) -> list[int]:
        """Returns the dimensions as a list."""
        return list(self)

    @property
    def ndims(self) -> int:
        """Number of dimensions."""
        return len(self)


class GraphEraMembers(ArrayOperators):
    """Monolith's graph-era members over ``name`` and ``value``."""

    name: str
    dtype: jnp.dtype
    shape: tuple[int, ...]

    def read_value(self) -> jax.Array:
        """Returns the value; the subclass says with which guarantees."""
        raise NotImplementedError(f"{type(self).__name__} must define 'read_value'")

    @property
    def handle(self) -> jax.Array:
        """The live array: what identified the storage in TensorFlow is the array itself in jax."""
        return self.value

    @property
    def initializer(self) -> None:
        """None, as for an eager ``tf.Variable``: a variable is born with its value."""
        return None

    @property
    def constraint(self) -> None:
        """None, as in Monolith."""
        return None

    def get_shape(self) -> Shape:
        """Returns `shape`, with ``as_list()`` and ``ndims``."""
        return Shape(self.shape)

    def get(self) -> Self:
        """Returns the variable itself; Monolith returned the first of its per-core variables."""
        return self

    @property
    def _shared_name(self) -> str:
        # The original reads an attribute that nothing sets; the intent is the name.
        return self.name

    @property
    def _unique_id(self) -> str:
        return f"{self.name}_{id(self)}"

    @property
    def _in_graph_mode(self) -> bool:
        return False

    def _should_act_as_resource_variable(self) -> None:
        """Does nothing: TensorFlow looks only whether the method is there."""

    def _dense_var_to_tensor(
        self, dtype: Any = None, name: str | None = None, as_ref: bool = False
    ) -> Any:
        """Returns the value, `handle` for `as_ref`, NotImplemented for another dtype."""
        del name
        if dtype is not None and jnp.dtype(dtype) != self.dtype:
            return NotImplemented
        return self.handle if as_ref else self.read_value()

    @property
    def graph(self) -> NoReturn:
        """Refused: there is no graph."""
        self._refuse("graph", "jax traces functions; see jax.make_jaxpr for a function's program")

    @property
    def op(self) -> NoReturn:
        """Refused: reading is no operation with a name."""
        self._refuse("op", "use read_value() for the value and .name for the name")

    def to_proto(self, export_scope: str | None = None) -> NoReturn:
        """Refused: a variable is saved as a leaf of a checkpoint, not as a proto."""
        del export_scope
        self._refuse("to_proto", "save the variable itself with orbax: it is a pytree of one array")

    def _refuse(self, member: str, instead: str) -> NoReturn:
        raise GraphEraError(
            f"variable {self.name!r} has no {member!r}, which belongs to TensorFlow's graphs; "
            f"{instead}"
        )
