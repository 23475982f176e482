"""What our variables are called in TensorFlow's checkpoints, and what a checkpoint has of them.

`read_names` reads a small file of exact names and regular expressions into a `NameMap`; `entries`
lists variables with their optimizers' state under TF's names; `match` compares that list with a
checkpoint and reports.
"""

from monolith_jax.checkpoint.tf.names._entries import Entry, Variable, averages, entries
from monolith_jax.checkpoint.tf.names._file import read_names
from monolith_jax.checkpoint.tf.names._map import (
    MovingAverages,
    NameMap,
    NameRule,
    OptimizerNames,
)
from monolith_jax.checkpoint.tf.names._match import match
from monolith_jax.checkpoint.tf.names._report import Conflict, Found, Left, Missing, Report

__all__ = [
    "Conflict",
    "Entry",
    "Found",
    "Left",
    "Missing",
    "MovingAverages",
    "NameMap",
    "NameRule",
    "OptimizerNames",
    "Report",
    "Variable",
    "averages",
    "entries",
    "match",
    "read_names",
]
