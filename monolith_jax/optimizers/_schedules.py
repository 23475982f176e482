"""Learning rates that change with the step, as TF1's `tf.compat.v1.train.*_decay` compute them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from monolith_jax.config import Config, field
from monolith_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Schedule(Config):
    """Base of the schedules: a config that is called with the step and gives the learning rate.

    The step counts the updates made before this one: the first update gets 0. The result is a
    float32 scalar. A schedule is an `optax.Schedule` too.
    """

    _named: ClassVar[dict[str, type["Schedule"]]] = {}

    def __init_subclass__(cls, choice: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if choice is not None:
            Schedule._named[choice] = cls

    @classmethod
    def choices(cls) -> dict[str, type[Config]]:
        """Returns the schedules by their short names: `{"exponential": ExponentialDecay, ...}`."""
        return {name: kind for name, kind in Schedule._named.items() if issubclass(kind, cls)}

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """Returns the learning rate of the update after `step` others, float32 []."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


# Configs read their fields' types at run time, where a function is no value that a command line
# or a JSON file could give; to a type checker it is as good as a number.
if TYPE_CHECKING:
    LearningRate = float | Schedule | jax.Array | Callable[[jax.Array], jax.Array | float]
else:
    LearningRate = float | Schedule


def _float(step: jax.Array | int) -> jax.Array:
    return jnp.asarray(step).astype(jnp.float32)


@dataclass(frozen=True, kw_only=True)
class PiecewiseConstant(Schedule, choice="piecewise"):
    """`values[i]` up to and including step `boundaries[i]`, the last value after that.

    Source: `tf.compat.v1.train.piecewise_constant`.

    Example:
      >>> rate = PiecewiseConstant(boundaries=(10,), values=(0.5, 0.25))
      >>> rate(10).item(), rate(11).item()
      (0.5, 0.25)
    """

    boundaries: tuple[int, ...] = field((), doc="Last step of each value but the last one.")
    values: tuple[float, ...] = field((0.01,), doc="Learning rates, one more than boundaries.")

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise ConfigError(
                f"values must be one more than boundaries, got {len(self.values)} values and "
                f"{len(self.boundaries)} boundaries"
            )
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise ConfigError(f"boundaries must increase, got {self.boundaries}")

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """Returns the value of the interval that holds `step`."""
        passed = jnp.asarray(step) > jnp.asarray(self.boundaries, jnp.int32)
        return jnp.asarray(self.values, jnp.float32)[jnp.sum(passed.astype(jnp.int32))]


@dataclass(frozen=True, kw_only=True)
class ExponentialDecay(Schedule, choice="exponential"):
    """`initial * decay_rate ** (step / decay_steps)`.

    Source: `tf.compat.v1.train.exponential_decay`.

    Example:
      >>> ExponentialDecay(initial=0.5, decay_steps=10, decay_rate=0.5)(20).item()
      0.125
    """

    initial: float = field(0.01, doc="The learning rate at step 0.")
    decay_steps: int = field(1_000, doc="Steps in which it falls by `decay_rate`.")
    decay_rate: float = field(0.96, doc="The factor of `decay_steps` steps.")
    staircase: bool = field(False, doc="Fall once in `decay_steps` steps, not continuously.")

    def __post_init__(self) -> None:
        _positive_steps(self.decay_steps)

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """Returns the decayed rate."""
        exponent = _float(step) / jnp.float32(self.decay_steps)
        exponent = jnp.floor(exponent) if self.staircase else exponent
        return jnp.float32(self.initial) * jnp.float32(self.decay_rate) ** exponent


@dataclass(frozen=True, kw_only=True)
class PolynomialDecay(Schedule, choice="polynomial"):
    """From `initial` to `end` in `decay_steps` steps, along `(1 - step / decay_steps) ** power`.

    Source: `tf.compat.v1.train.polynomial_decay`.

    Example:
      >>> rate = PolynomialDecay(initial=1.0, end=0.5, decay_steps=10)
      >>> rate(5).item(), rate(10).item(), rate(999).item()
      (0.75, 0.5, 0.5)
    """

    initial: float = field(0.01, doc="The learning rate at step 0.")
    decay_steps: int = field(10_000, doc="Steps until `end`.")
    end: float = field(0.0001, doc="The learning rate from `decay_steps` on.")
    power: float = field(1.0, doc="The power of the polynomial; 1: a line.")
    cycle: bool = field(False, doc="Restart, each time `decay_steps` times the cycles longer.")

    def __post_init__(self) -> None:
        _positive_steps(self.decay_steps)

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """Returns the decayed rate."""
        at, steps = _float(step), jnp.float32(self.decay_steps)
        if self.cycle:
            steps = steps * jnp.maximum(jnp.ceil(at / steps), jnp.float32(1))
        left = jnp.float32(1) - jnp.minimum(at, steps) / steps
        span = jnp.float32(self.initial) - jnp.float32(self.end)
        return span * left ** jnp.float32(self.power) + jnp.float32(self.end)


@dataclass(frozen=True, kw_only=True)
class CosineDecay(Schedule, choice="cosine"):
    """From `initial` to `alpha * initial` in `decay_steps` steps, along half a cosine.

    Source: `tf.compat.v1.train.cosine_decay`; Loshchilov, Hutter (2017), SGDR.

    Example:
      >>> rate = CosineDecay(initial=1.0, decay_steps=10)
      >>> rate(0).item(), round(rate(5).item(), 3), rate(10).item()
      (1.0, 0.5, 0.0)
    """

    initial: float = field(0.01, doc="The learning rate at step 0.")
    decay_steps: int = field(10_000, doc="Steps until the end value.")
    alpha: float = field(0.0, doc="The end value as a fraction of `initial`.")

    def __post_init__(self) -> None:
        _positive_steps(self.decay_steps)

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """Returns the decayed rate."""
        steps = jnp.float32(self.decay_steps)
        part = jnp.minimum(_float(step), steps) / steps
        cosine = jnp.float32(0.5) * (jnp.float32(1) + jnp.cos(jnp.float32(jnp.pi) * part))
        alpha = jnp.float32(self.alpha)
        return jnp.float32(self.initial) * ((jnp.float32(1) - alpha) * cosine + alpha)


@dataclass(frozen=True, kw_only=True)
class Warmup(Schedule, choice="warmup"):
    """A line from 0 to the first rate of `then` in `steps` steps, and `then` from there on.

    The first update already moves: step k of the warm-up gets `(k + 1) / steps` of the rate.
    `then` sees the steps after the warm-up, from 0.

    Source: Goyal et al. (2017), Accurate, Large Minibatch SGD, section 2.2.

    Example:
      >>> rate = Warmup(steps=4, then=1.0)
      >>> [rate(step).item() for step in range(5)]
      [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    steps: int = field(1_000, doc="Steps of the warm-up.")
    then: float | Schedule = field(0.01, doc="The rate after it, a number or a schedule.")

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, got {self.steps}")

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """Returns the warmed-up rate."""
        after = jnp.maximum(jnp.asarray(step) - self.steps, 0)
        rate = self.then(after) if callable(self.then) else jnp.float32(self.then)
        part = (_float(step) + jnp.float32(1)) / jnp.float32(self.steps)
        return jnp.asarray(rate).astype(jnp.float32) * jnp.minimum(part, jnp.float32(1))


def _positive_steps(decay_steps: int) -> None:
    if decay_steps < 1:
        raise ConfigError(f"decay_steps must be at least 1, got {decay_steps}")
