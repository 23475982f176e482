"""Configs that explain themselves: frozen dataclasses with documented, typed, overridable fields.

A config is data about a thing that can be built. It is immutable, compares by value, prints as it
is written, survives JSON, and knows for each field what it does and whether a run that was stopped
may go on with another value. The command line, `DIR/config.json` and `--help` all come from it.

Example:
  >>> from dataclasses import dataclass
  >>> from monolith_jax import config
  >>> @dataclass(frozen=True, kw_only=True)
  ... class Mlp(config.Config):
  ...     hidden: tuple[int, ...] = config.field((64, 32), doc="Widths of the hidden layers.")
  >>> config.override(Mlp(), {"hidden": "128,64"})
  Mlp(hidden=(128, 64))
  >>> config.override(Mlp(), {"hiden": "128"})
  Traceback (most recent call last):
  ...
  monolith_jax.errors.ConfigError: Mlp has no field 'hiden': did you mean hidden?
"""

from monolith_jax.config._base import Config, field
from monolith_jax.config._describe import FieldInfo, describe, differences
from monolith_jax.config._json import from_dict, to_dict
from monolith_jax.config._override import override

__all__ = [
    "Config",
    "FieldInfo",
    "describe",
    "differences",
    "field",
    "from_dict",
    "override",
    "to_dict",
]
