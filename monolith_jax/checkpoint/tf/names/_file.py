"""The names file: a `NameMap` as TOML."""

import os
import tomllib
from dataclasses import fields
from typing import Any, TypeVar

from monolith_jax import storage
from monolith_jax.checkpoint.tf.names._map import (
    MovingAverages,
    NameMap,
    NameRule,
    OptimizerNames,
)
from monolith_jax.errors import ConfigError, did_you_mean

T = TypeVar("T")


def read_names(path: storage.Path) -> NameMap:
    r"""Reads a names file, TOML, local or gs://.

    All that can be said:

        global_step = "global_step"
        ignore = ['.*/debug/.*']               # TF's names to leave out without a word

        [variables]                            # one by one: our path = TF's name
        "tables/user" = "embedding/user_table"

        [[rules]]                              # many at once, in this order
        ours = 'params/deep/hidden_(\d+)/(\w+)'
        tf = 'dnn/layer\1/\2'

        [optimizers.params]                    # also .tables, ."tables/user"
        name = "MyAdam"
        scope = "train"
        slot_index = 1
        scalar_index = 1
        renamed = { accumulator = "acc" }

        [moving_averages]
        name = "ExponentialMovingAverage"
        read = true
        write = true

    Raises:
      ConfigError: it cannot be read, or says something else; names the file and the entry.

    Example:
      >>> import tempfile
      >>> file = storage.join(tempfile.mkdtemp(), "names.toml")
      >>> storage.write_bytes(file, b'[variables]\n"tables/user" = "emb/user"')
      >>> read_names(file).name("tables/user")
      'emb/user'
    """
    where = os.fspath(path)
    try:
        document = tomllib.loads(storage.read_bytes(path).decode())
    except storage.NotFoundError as error:
        raise ConfigError(f"{where}: no such file") from error
    except (ValueError, storage.StorageError) as error:
        raise ConfigError(f"{where} cannot be read: {error}") from error
    try:
        return _parse(document)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _parse(document: dict[str, Any]) -> NameMap:
    _check_keys("", document, NameMap)
    rules = document.get("rules", [])
    optimizers = document.get("optimizers", {})
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigError("rules must be tables, [[rules]]")
    if not isinstance(optimizers, dict):
        raise ConfigError("optimizers must be tables, [optimizers.PATH]")
    made: dict[str, Any] = {
        "variables": _texts("variables", document.get("variables", {})),
        "rules": tuple(_table("rules", rule, NameRule) for rule in rules),
        "optimizers": {
            k: _table(f"optimizers.{k}", v, OptimizerNames) for k, v in optimizers.items()
        },
        "moving_averages": _table(
            "moving_averages", document.get("moving_averages", {}), MovingAverages
        ),
    }
    if "global_step" in document:
        made["global_step"] = _typed("global_step", document["global_step"], str)
    ignore = _typed("ignore", document.get("ignore", []), list)
    made["ignore"] = tuple(_typed("ignore", item, str) for item in ignore)
    return NameMap(**made)


def _table(where: str, values: Any, kind: type[T]) -> T:
    """Makes a dataclass of texts, ints, bools and tables of texts from a TOML table."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table, got {values!r}")
    _check_keys(where, values, kind)
    types = {"slot_index": int, "scalar_index": int, "read": bool, "write": bool}
    made: dict[str, Any] = {}
    for key, value in values.items():
        at = f"{where}.{key}"
        made[key] = (
            _texts(at, value) if key == "renamed" else _typed(at, value, types.get(key, str))
        )
        if isinstance(made[key], int) and made[key] < 0:
            raise ConfigError(f"{at} must be at least 0, got {value}")
    for key in ("ours", "tf") if kind is NameRule else ():
        if key not in made:
            raise ConfigError(f"{where}: a rule needs {key}")
    return kind(**made)


def _texts(where: str, values: Any) -> dict[str, str]:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table, got {values!r}")
    return {key: _typed(f"{where}.{key}", value, str) for key, value in values.items()}


def _typed(where: str, value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise ConfigError(f"{where} must be a {kind.__name__}, got {value!r}")
    return value


def _check_keys(where: str, values: dict[str, Any], kind: type) -> None:
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            at = f"{where}: " if where else ""
            raise ConfigError(f"{at}unknown entry {key!r}: {did_you_mean(key, known)}")
