"""TF1's optimizers by name, with TF1's constructor arguments, as optax transformations."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optax

from monolith_jax.errors import ConfigError, did_you_mean
from monolith_jax.optimizers._adagrad import Adagrad
from monolith_jax.optimizers._adam import Adam, LazyAdam
from monolith_jax.optimizers._ftrl import Ftrl
from monolith_jax.optimizers._momentum import Momentum
from monolith_jax.optimizers._optax import as_optax
from monolith_jax.optimizers._rmsprop import RMSProp
from monolith_jax.optimizers._rowwise_adagrad import RowwiseAdagrad
from monolith_jax.optimizers._schedules import LearningRate
from monolith_jax.optimizers._sgd import Sgd

# Every function takes `use_locking` and `name` where TF's class does. Locking changes no number,
# and updates here are functions: nothing is there to lock. The name goes into slot names alone:
# give it to `tf_slot_names`. `exact` is ours (see `UpdateRule`) and comes by keyword only.


def adagrad(
    learning_rate: LearningRate,
    initial_accumulator_value: float = 0.1,
    use_locking: bool = False,
    name: str = "Adagrad",
    *,
    exact: bool = True,
) -> optax.GradientTransformation:
    """Returns `Adagrad` for optax; arguments of `tf.compat.v1.train.AdagradOptimizer`."""
    return as_optax(
        Adagrad(
            learning_rate=learning_rate,
            initial_accumulator_value=initial_accumulator_value,
            exact=exact,
        )
    )


def momentum(
    learning_rate: LearningRate,
    momentum: float,
    use_locking: bool = False,
    name: str = "Momentum",
    use_nesterov: bool = False,
    *,
    exact: bool = True,
) -> optax.GradientTransformation:
    """Returns `Momentum` for optax; arguments of `tf.compat.v1.train.MomentumOptimizer`."""
    return as_optax(
        Momentum(
            learning_rate=learning_rate, momentum=momentum, use_nesterov=use_nesterov, exact=exact
        )
    )


def rmsprop(
    learning_rate: LearningRate,
    decay: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-10,
    use_locking: bool = False,
    centered: bool = False,
    name: str = "RMSProp",
    *,
    exact: bool = True,
) -> optax.GradientTransformation:
    """Returns `RMSProp` for optax; arguments of `tf.compat.v1.train.RMSPropOptimizer`."""
    return as_optax(
        RMSProp(
            learning_rate=learning_rate,
            decay=decay,
            momentum=momentum,
            epsilon=epsilon,
            centered=centered,
            exact=exact,
        )
    )


def adam(
    learning_rate: LearningRate = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    use_locking: bool = False,
    name: str = "Adam",
    use_own_namescope_for_non_slot_vars: bool = False,
    *,
    exact: bool = True,
) -> optax.GradientTransformation:
    """Returns `Adam` for optax; arguments of `tf.compat.v1.train.AdamOptimizer`.

    `use_own_namescope_for_non_slot_vars` too is about names alone: see `tf_scalar_names`.
    """
    return as_optax(
        Adam(learning_rate=learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon, exact=exact)
    )


def lazy_adam(
    learning_rate: LearningRate = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    use_locking: bool = False,
    name: str = "Adam",
    *,
    exact: bool = True,
) -> optax.GradientTransformation:
    """Returns `LazyAdam` for optax; arguments of `tf.contrib.opt.LazyAdamOptimizer`.

    On dense parameters, all that optax sees, it is Adam.
    """
    return as_optax(
        LazyAdam(
            learning_rate=learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon, exact=exact
        )
    )


def sgd(
    learning_rate: LearningRate,
    use_locking: bool = False,
    name: str = "GradientDescent",
    *,
    exact: bool = True,
) -> optax.GradientTransformation:
    """Returns `Sgd` for optax; arguments of `tf.compat.v1.train.GradientDescentOptimizer`."""
    return as_optax(Sgd(learning_rate=learning_rate, exact=exact))


def ftrl(
    learning_rate: LearningRate,
    learning_rate_power: float = -0.5,
    initial_accumulator_value: float = 0.1,
    l1_regularization_strength: float = 0.0,
    l2_regularization_strength: float = 0.0,
    use_locking: bool = False,
    name: str = "Ftrl",
    accum_name: str | None = None,
    linear_name: str | None = None,
    l2_shrinkage_regularization_strength: float = 0.0,
    beta: float | None = None,
    *,
    exact: bool = True,
) -> optax.GradientTransformation:
    """Returns `Ftrl` for optax; arguments of `tf.compat.v1.train.FtrlOptimizer`."""
    return as_optax(
        Ftrl(
            learning_rate=learning_rate,
            learning_rate_power=learning_rate_power,
            initial_accumulator_value=initial_accumulator_value,
            l1_regularization_strength=l1_regularization_strength,
            l2_regularization_strength=l2_regularization_strength,
            l2_shrinkage_regularization_strength=l2_shrinkage_regularization_strength,
            beta=0.0 if beta is None else beta,
            exact=exact,
        )
    )


def rowwise_adagrad(
    learning_rate: LearningRate,
    initial_accumulator_value: float = 0.0,
    epsilon: float = 1e-8,
    use_locking: bool = False,
    name: str = "RowwiseAdagrad",
    *,
    exact: bool = True,
) -> optax.GradientTransformation:
    """Returns `RowwiseAdagrad` for optax; it has no counterpart in TF1."""
    return as_optax(
        RowwiseAdagrad(
            learning_rate=learning_rate,
            initial_accumulator_value=initial_accumulator_value,
            epsilon=epsilon,
            exact=exact,
        )
    )


class UnknownOptimizerError(ConfigError, KeyError):
    """A name that no optimizer has; the message lists those there are."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError's own __str__ would put the message in quotes.


class Optimizers(Mapping[str, Callable[..., optax.GradientTransformation]]):
    """Optimizers by name: a read-only dict whose KeyError names near misses and all choices.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizers["rmsprop"](0.01, 0.9, centered=True).init(jnp.zeros(2)).slots["mg"].tolist()
      [0.0, 0.0]
      >>> optimizers["adma"]
      Traceback (most recent call last):
      ...
      monolith_jax.optimizers._tf1.UnknownOptimizerError: no optimizer named 'adma': did you
      mean adam or adagrad? Valid choices: adagrad, adam, ftrl, lazy_adam, momentum, ...
    """

    def __init__(self, known: Mapping[str, Callable[..., optax.GradientTransformation]]) -> None:
        self._known = dict(known)

    def __getitem__(self, name: str) -> Callable[..., optax.GradientTransformation]:
        """Returns the constructor called `name`.

        Raises:
          UnknownOptimizerError: a `KeyError` and `UserError`.
        """
        if name in self._known:
            return self._known[name]
        choices = f"valid choices: {', '.join(sorted(self._known))}"
        hint = did_you_mean(str(name), self._known)
        if hint != choices:
            hint = f"{hint} Valid {choices.removeprefix('valid ')}"
        raise UnknownOptimizerError(f"no optimizer named {name!r}: {hint}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"Optimizers({', '.join(self._known)})"


optimizers: Mapping[str, Callable[..., Any]] = Optimizers(
    {
        "adagrad": adagrad,
        "momentum": momentum,
        "rmsprop": rmsprop,
        "adam": adam,
        "sgd": sgd,
        "ftrl": ftrl,
        "rowwise_adagrad": rowwise_adagrad,
        "lazy_adam": lazy_adam,
    }
)
"""Monolith's `optimizers` table: TF1's constructor arguments, by TF1's names and in its order."""
