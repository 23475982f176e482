"""Gradients of a step, dense and by table: measured, clipped together, summed up for the metrics.

    norm    sqrt(sum over all dense parameters and all touched rows of g * g)
    clip    g * clip_norm * min(1 / norm, 1 / clip_norm)

A touched row counts once, with its gradient summed over all its uses in the batch: this is
`tf.clip_by_global_norm` after the duplicates of the sparse gradients are summed, as TF1's
optimizers sum them before they apply them. (Given the raw sparse gradients, TF takes the norm of
the parts, and two halves of one row's gradient count less than the whole.)

In the metrics of a window of steps:

    gradient_norm         root mean square over the steps of the norm, before clipping
    clipped               share of the steps whose gradients were clipped
    gradient_norm/dense   of the dense parameters
    gradient_norm/TABLE   of each table
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from monolith_jax.embedding import Lookups, Rows, XlaEngine
from monolith_jax.task import TaskConfig

_STEPS, _CLIPPED, _SQUARE = "gradient/steps", "gradient/clipped", "gradient/square"
_PREFIX = "gradient/"
DENSE = "dense"


class Gradients:
    """What a task does with gradients between backward pass and update; nothing by default.

    Args:
      task: `train.clip_norm` and `train.gradient_norms` decide.
      engine: the tables.
    """

    def __init__(self, task: TaskConfig, engine: XlaEngine) -> None:
        self._clip_norm = task.train.clip_norm
        self._by_table = task.train.gradient_norms
        self._tables = [table.name for table in task.tables]
        self._engine = engine

    @property
    def used(self) -> bool:
        """Whether there is anything to do."""
        return self._clip_norm > 0 or self._by_table

    def empty(self) -> dict[str, jax.Array]:
        """Returns what a window of no steps has of gradients, float32 scalars."""
        names = [_STEPS, _SQUARE] if self.used else []
        if self._clip_norm > 0:
            names.append(_CLIPPED)
        if self._by_table:
            names += [f"{_SQUARE}/{name}" for name in (DENSE, *self._tables)]
        return {name: jnp.zeros((), jnp.float32) for name in names}

    def __call__(
        self, dense: Any, rows: Rows, lookups: Lookups
    ) -> tuple[Any, Rows, dict[str, jax.Array]]:
        """Returns the gradients to use, dense and of rows, and what this step adds to a window."""
        if not self.used:
            return dense, rows, {}
        dense_square = _square(dense)
        sums = {_STEPS: jnp.float32(1.0)}
        if self._by_table:
            by_table = self._engine.gradient_squares(lookups, rows)
            square = dense_square + sum(by_table.values(), jnp.float32(0.0))
            sums |= {f"{_SQUARE}/{name}": by_table[name] for name in self._tables}
            sums[f"{_SQUARE}/{DENSE}"] = dense_square
        else:
            square = dense_square + _square(rows)
        sums[_SQUARE] = square
        if self._clip_norm > 0:
            norm = jnp.sqrt(square)
            sums[_CLIPPED] = (norm > self._clip_norm).astype(jnp.float32)
            dense, rows = clip((dense, rows), norm, self._clip_norm)
        return dense, rows, sums


def clip(gradients: Any, norm: jax.Array, clip_norm: float) -> Any:
    """Returns gradients scaled so that their joint norm is at most `clip_norm`.

    A norm that is not finite makes all of them NaN, as in TF: it must not pass for a small step.

    Args:
      gradients: a pytree of float arrays.
      norm: float32 [], their joint norm.
      clip_norm: above 0.

    Example:
      >>> clip([jnp.float32(6.0), jnp.float32(8.0)], jnp.float32(10.0), 5.0)
      [Array(3., dtype=float32), Array(4., dtype=float32)]

    References:
      `tf.clip_by_global_norm`; Pascanu et al. (2013), On the difficulty of training RNNs.
    """
    limit = jnp.float32(clip_norm)
    scale = limit * jnp.minimum(1.0 / norm, 1.0 / limit)
    scale = jnp.where(jnp.isfinite(norm), scale, jnp.float32(jnp.nan))
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)


def split(window: Mapping[str, jax.Array]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Returns a window's other sums, and its sums of gradients."""
    mine = {name: value for name, value in window.items() if name.startswith(_PREFIX)}
    return {name: value for name, value in window.items() if name not in mine}, mine


def summarize(window: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of a window's gradients; none where nothing was measured.

    Example:
      >>> summarize({"gradient/steps": 2.0, "gradient/square": 50.0, "gradient/square/user": 8.0})
      {'gradient_norm': 5.0, 'gradient_norm/user': 2.0}
    """
    steps = float(window.get(_STEPS, 0.0))
    if steps == 0.0:
        return {}
    found: dict[str, float] = {}
    for name, value in window.items():
        if name.startswith(_SQUARE):
            key = f"gradient_norm{name.removeprefix(_SQUARE)}"
            found[key] = float(np.sqrt(float(value) / steps))
    if _CLIPPED in window:
        found["clipped"] = float(window[_CLIPPED]) / steps
    return found


def _square(arrays: Any) -> jax.Array:
    """Returns the sum of all the squares of a pytree, float32 []."""
    squares = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(arrays)]
    return sum(squares, jnp.float32(0.0))
