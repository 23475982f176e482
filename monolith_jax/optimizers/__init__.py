"""Optimizers: TF1's update rules, each one formula, for dense parameters and for table rows.

A rule is a config: `Adagrad(learning_rate=0.05)`. `as_optax(rule)` makes the optax transformation
for dense parameters; a table engine calls `rule.update(..., rows=True)` on the rows that a batch
touched. `optimizers["adagrad"]` takes TF1's own constructor arguments.

Example:
  >>> import jax.numpy as jnp
  >>> import optax
  >>> from monolith_jax.optimizers import Adam, as_optax
  >>> optimizer = as_optax(Adam(learning_rate=0.5))
  >>> params = {"w": jnp.ones(2)}
  >>> updates, state = optimizer.update({"w": jnp.ones(2)}, optimizer.init(params), params)
  >>> optax.apply_updates(params, updates)["w"].round(3).tolist()
  [0.5, 0.5]
"""

from monolith_jax.optimizers._adagrad import Adagrad
from monolith_jax.optimizers._adam import Adam, LazyAdam
from monolith_jax.optimizers._ftrl import Ftrl
from monolith_jax.optimizers._fusion import MULTI_OUTPUT_FUSION, fuses_outputs
from monolith_jax.optimizers._momentum import Momentum
from monolith_jax.optimizers._optax import RuleState, as_optax
from monolith_jax.optimizers._rmsprop import RMSProp
from monolith_jax.optimizers._rowwise_adagrad import RowwiseAdagrad
from monolith_jax.optimizers._rule import Slot, UpdateRule
from monolith_jax.optimizers._schedules import (
    CosineDecay,
    ExponentialDecay,
    LearningRate,
    PiecewiseConstant,
    PolynomialDecay,
    Schedule,
    Warmup,
)
from monolith_jax.optimizers._sgd import Sgd
from monolith_jax.optimizers._tf1 import UnknownOptimizerError, optimizers
from monolith_jax.optimizers._tf_names import TFVariable, tf_scalar_names, tf_slot_names

__all__ = [
    "MULTI_OUTPUT_FUSION",
    "Adagrad",
    "Adam",
    "CosineDecay",
    "ExponentialDecay",
    "Ftrl",
    "LazyAdam",
    "LearningRate",
    "Momentum",
    "PiecewiseConstant",
    "PolynomialDecay",
    "RMSProp",
    "RowwiseAdagrad",
    "RuleState",
    "Schedule",
    "Sgd",
    "Slot",
    "TFVariable",
    "UnknownOptimizerError",
    "UpdateRule",
    "Warmup",
    "as_optax",
    "fuses_outputs",
    "optimizers",
    "tf_scalar_names",
    "tf_slot_names",
]
