"""Recommendation-model training on TPUs in JAX and Flax.

Name a model, point at dated TFRecords and a folder, and it trains with touched-row embedding
updates on whatever jax finds, and resumes exactly. The rooms:

    monolith_jax.nested_map            NestedMap, a dict that is a jax pytree
    monolith_jax.registry              model name -> model class
    monolith_jax.config, .task         what a model is, as data
    monolith_jax.optimizers            TensorFlow 1's update rules, dense and on touched rows
    monolith_jax.replicated_variable   a named holder of one sharded array
    monolith_jax.embedding             tables that are updated where a batch touches them
    monolith_jax.models                Flax modules
    monolith_jax.input                 dated TFRecords -> batches
    monolith_jax.checkpoint            complete or invisible
    monolith_jax.training              the loop
    monolith_jax.testing               helpers for your own tests
    monolith_jax.core                  Monolith's own import names

The names below are loaded when they are first used, so that `import monolith_jax` stays cheap.

Example:
  >>> import monolith_jax
  >>> monolith_jax.NestedMap(a=1).a
  1
"""

from typing import TYPE_CHECKING

from monolith_jax._lazy import lazy

__version__ = "0.1.0"

if TYPE_CHECKING:
    from monolith_jax.nested_map import NestedMap
    from monolith_jax.registry import (
        GetAllRegisteredClasses,
        GetClass,
        GetParams,
        RegisterSingleTaskModel,
        SingleTaskModelParams,
    )
    from monolith_jax.replicated_variable import ReplicatedVariable
    from monolith_jax.task import TaskConfig
    from monolith_jax.training import train

_HOMES = {
    "NestedMap": "nested_map",
    "ReplicatedVariable": "replicated_variable",
    "GetAllRegisteredClasses": "registry",
    "GetClass": "registry",
    "GetParams": "registry",
    "RegisterSingleTaskModel": "registry",
    "SingleTaskModelParams": "registry",
    "TaskConfig": "task",
    "train": "training",
}

__all__ = [
    "GetAllRegisteredClasses",
    "GetClass",
    "GetParams",
    "NestedMap",
    "RegisterSingleTaskModel",
    "ReplicatedVariable",
    "SingleTaskModelParams",
    "TaskConfig",
    "__version__",
    "train",
]

__getattr__, __dir__ = lazy(globals(), _HOMES)
