"""Everything that makes an object with a ``value`` usable where a `jax.Array` is."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def as_operand(other: Any) -> Any:
    """Returns the array inside `other` if it is one of ours, else `other` itself."""
    return other.value if isinstance(other, ArrayOperators) else other


def _forward(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: "ArrayOperators", other: Any) -> Any:
        return function(self.value, as_operand(other))

    return method


def _reflected(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: "ArrayOperators", other: Any) -> Any:
        return function(as_operand(other), self.value)

    return method


def _unary(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def method(self: "ArrayOperators") -> Any:
        return function(self.value)

    return method


class ArrayOperators:
    """Operators, conversions and indexing, all of them applied to ``self.value``.

    A subclass provides the property ``value``. Results are plain arrays, never variables: an
    expression has no name. Like a `jax.Array` an instance compares elementwise and is therefore
    not hashable.
    """

    # numpy's operators step back for objects with a higher priority, as they do for a jax.Array.
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    @property
    def value(self) -> jax.Array:
        """The array that the operators work on."""
        raise NotImplementedError(f"{type(self).__name__} must define the property 'value'")

    def __jax_array__(self) -> jax.Array:
        """Lets every ``jax.numpy`` function take the object as the array it holds."""
        return self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Returns the value as numpy sees it; always a copy, so ``copy=False`` is an error."""
        if copy is False:
            raise ValueError("a device array cannot become a numpy array without a copy")
        return np.array(self.value, dtype=dtype)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return jnp.ndim(self.value)

    @property
    def size(self) -> int:
        """Number of elements, of one replica."""
        return jnp.size(self.value)

    def __getitem__(self, key: Any) -> jax.Array:
        return self.value[as_operand(key)]

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[jax.Array]:
        return iter(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __complex__(self) -> complex:
        return complex(self.value)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __divmod__(self, other: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.divmod(self.value, as_operand(other))

    def __rdivmod__(self, other: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.divmod(as_operand(other), self.value)

    def __round__(self, ndigits: int = 0) -> jax.Array:
        return jnp.round(self.value, ndigits)

    __eq__ = _forward(operator.eq)  # type: ignore[assignment]
    __ne__ = _forward(operator.ne)  # type: ignore[assignment]
    __lt__ = _forward(operator.lt)
    __le__ = _forward(operator.le)
    __gt__ = _forward(operator.gt)
    __ge__ = _forward(operator.ge)

    __add__ = _forward(operator.add)
    __sub__ = _forward(operator.sub)
    __mul__ = _forward(operator.mul)
    __truediv__ = _forward(operator.truediv)
    __floordiv__ = _forward(operator.floordiv)
    __mod__ = _forward(operator.mod)
    __pow__ = _forward(operator.pow)
    __matmul__ = _forward(operator.matmul)
    __and__ = _forward(operator.and_)
    __or__ = _forward(operator.or_)
    __xor__ = _forward(operator.xor)
    __lshift__ = _forward(operator.lshift)
    __rshift__ = _forward(operator.rshift)

    __radd__ = _reflected(operator.add)
    __rsub__ = _reflected(operator.sub)
    __rmul__ = _reflected(operator.mul)
    __rtruediv__ = _reflected(operator.truediv)
    __rfloordiv__ = _reflected(operator.floordiv)
    __rmod__ = _reflected(operator.mod)
    __rpow__ = _reflected(operator.pow)
    __rmatmul__ = _reflected(operator.matmul)
    __rand__ = _reflected(operator.and_)
    __ror__ = _reflected(operator.or_)
    __rxor__ = _reflected(operator.xor)
    __rlshift__ = _reflected(operator.lshift)
    __rrshift__ = _reflected(operator.rshift)

    __neg__ = _unary(operator.neg)
    __pos__ = _unary(operator.pos)
    __abs__ = _unary(operator.abs)
    __invert__ = _unary(operator.invert)
