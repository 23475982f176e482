"""One Flax layer as functions of (variables, input), whichever of Flax's two APIs it is written in.

Linen modules are used as they are; NNX modules come in through `flax.nnx.bridge.ToLinen`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from monolith_jax.errors import ConfigError

Variables = Mapping[str, Any]

# Everything but the weights may change in a call (batch statistics, caches, sown values).
_STATE = flax.core.DenyList(("params",))


@dataclasses.dataclass(frozen=True, eq=False)  # hashable by identity, as jit wants functions
class Layer:
    """A Linen module with the random keys and arguments that every call of it gets."""

    module: nn.Module
    rngs: Mapping[str, jax.Array]
    call_kwargs: Mapping[str, Any]

    def init(self, x: jax.Array) -> Variables:
        """Returns fresh variables: ``{"params": ..., other collections}``."""
        return self.module.init(dict(self.rngs), x, **self.call_kwargs)

    def __call__(self, variables: Variables, x: jax.Array) -> jax.Array:
        """Returns the output; changes of other collections are dropped.

        Raises:
          TypeError: If the output is not one array.
        """
        output, _ = self.module.apply(
            variables, x, **self.call_kwargs, rngs=self._call_rngs(), mutable=_STATE
        )
        if not isinstance(output, jax.Array | np.ndarray | np.generic):
            raise TypeError(
                f"layer_test is for layers with one output array, not {type(output).__name__}; "
                "wrap the layer in a module that returns the output to test"
            )
        return output  # type: ignore[return-value]

    def adapt(self, variables: Variables, data: jax.Array) -> Variables:
        """Returns `variables` as the module's method ``adapt(data)`` leaves them.

        Raises:
          TypeError: If there is no such method.
        """
        if not callable(getattr(type(self.module), "adapt", None)):
            raise TypeError(
                f"adapt_data was given and {type(self.module).__name__} has no method adapt(data); "
                "in Flax it updates variables of the module in a collection of their own"
            )
        _, updates = self.module.apply(
            variables, data, method="adapt", rngs=self._call_rngs(), mutable=True
        )
        return {**variables, **updates}

    def with_call_kwargs(self, **call_kwargs: Any) -> "Layer":
        """Returns the layer with some arguments of its calls set."""
        return dataclasses.replace(self, call_kwargs={**self.call_kwargs, **call_kwargs})

    def _call_rngs(self) -> dict[str, jax.Array]:
        return {name: key for name, key in self.rngs.items() if name != "params"}


def make_layer(
    layer_cls: Any,
    kwargs: Mapping[str, Any],
    call_kwargs: Mapping[str, Any],
    rng_names: Sequence[str],
    seed: int,
) -> Layer:
    """Returns ``layer_cls(**kwargs)`` with keys for "params", "dropout" and `rng_names`.

    Raises:
      ConfigError: If that is neither a Linen nor an NNX module.
    """
    if inspect.isclass(layer_cls) and issubclass(layer_cls, nnx.Module):
        module: Any = nnx.bridge.ToLinen(layer_cls, kwargs=flax.core.FrozenDict(kwargs))
    elif callable(layer_cls) and not isinstance(layer_cls, nn.Module):
        module = layer_cls(**kwargs)
    else:
        raise ConfigError(f"layer_cls must be a class, not an instance: {type(layer_cls).__name__}")
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{layer_name(layer_cls)} makes a {type(module).__name__}; layer_test is for Flax: "
            "a flax.linen.Module or a flax.nnx.Module"
        )
    names = ["params", "dropout", *rng_names]
    keys = jax.random.split(jax.random.key(seed), len(names))
    return Layer(module, dict(zip(names, keys, strict=True)), call_kwargs)


def layer_name(layer_cls: Any) -> str:
    """Returns the name of a class or of a factory such as a `functools.partial`."""
    named = getattr(layer_cls, "func", layer_cls)
    return getattr(named, "__name__", type(named).__name__)


def takes_weights(layer_cls: Any) -> bool:
    """Returns whether the constructor has an argument ``weights``."""
    return "weights" in inspect.signature(layer_cls).parameters


def is_float(leaf: Any) -> bool:
    """Returns whether `leaf` holds real floats, the numbers that can be differentiated and cast."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def map_floats(function: Callable[[Any], Any], tree: Any) -> Any:
    """Returns `tree` with `function` applied to its float leaves."""
    return jax.tree.map(lambda leaf: function(leaf) if is_float(leaf) else leaf, tree)


def split_floats(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Returns the float leaves of `tree`, and the function that puts such leaves back."""
    leaves, treedef = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if is_float(leaf)]

    def join(floats: list[Any]) -> Any:
        merged = list(leaves)
        for place, leaf in zip(places, floats, strict=True):
            merged[place] = leaf
        return jax.tree.unflatten(treedef, merged)

    return [leaves[i] for i in places], join
