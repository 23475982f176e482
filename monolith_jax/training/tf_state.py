"""A train state as variables with names: listed, replaced by arrays, and read out as arrays."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from monolith_jax.checkpoint.tf.names import Entry, Found, Variable
from monolith_jax.errors import CheckpointError, ConfigError
from monolith_jax.optimizers import RuleState
from monolith_jax.training.program import Program, TrainState

PARAMS, TABLES = "params", "tables"


def tf_variables(program: Program) -> tuple[Variable, ...]:
    """Returns the variables of a task: `params/...` from the Flax tree, `tables/NAME`.

    The dense parameters share one optimizer's scalars; so do the tables of one stack.
    """
    abstract = program.abstract_state()
    dense = [
        Variable(path, leaf.shape, program.task.optimizer, PARAMS, np.dtype(leaf.dtype))
        for path, leaf in _flat(abstract.params).items()
    ]
    tables = {}
    saved = program.engine.abstract_saved()["stacks"]
    for stack in program.engine.stacks:
        dtype = np.dtype(saved[stack.name]["value"].dtype)
        for table in stack.tables:
            path, shape = f"{TABLES}/{table.name}", (table.vocab_size, table.dim)
            tables[table.name] = Variable(path, shape, stack.rule, _owner(stack.name), dtype)
    return (*dense, *(tables[table.name] for table in program.task.tables))


def with_arrays(
    program: Program,
    state: TrainState,
    found: Iterable[Found],
    read: Callable[[str], np.ndarray],
    step: int,
) -> TrainState:
    """Returns the state with all that was found in place of what it had, at `step` steps.

    Args:
      program: the task's functions.
      state: a fresh one; what was not found stays.
      found: entries of `tf_variables`, and the name to read each by.
      read: by that name, the array; called once for each, one after the other.
      step: steps done.

    Raises:
      CheckpointError: one optimizer's scalar is found under several names, with several values.
    """
    found = list(found)
    tables = state.tables
    for table in program.task.tables:
        path = f"{TABLES}/{table.name}"
        mine = {f.entry.part: read(f.tf) for f in found if f.entry.variable == path}
        rows = mine.pop("", None)
        if rows is not None or mine:
            slots = {name: _as_float(slot) for name, slot in mine.items()}
            tables = program.engine.with_table(tables, table.name, _as_float(rows), slots)
    scalars: dict[str, dict[str, np.ndarray]] = {}
    for f in found:
        if f.entry.kind == "scalar":
            value, mine = read(f.tf), scalars.setdefault(f.entry.variable, {})
            if mine.setdefault(f.entry.part, value) != value:
                raise CheckpointError(
                    f"{f.tf!r} is {value}, but tables of one stack ({f.entry.variable}) share "
                    f"{f.entry.part}, which is {mine[f.entry.part]} under another name"
                )
    dense = {
        (f.entry.variable, f.entry.part): read(f.tf)
        for f in found
        if f.entry.variable.startswith(f"{PARAMS}/")
    }
    return TrainState(
        _put(step, state.step),
        _replaced(state.params, dense, ""),
        _with_rule_state(state.opt_state, dense, scalars.get(PARAMS, {}), step),
        _with_scalars(tables, scalars, step),
    )


def arrays_of(
    program: Program, state: TrainState, made: Iterable[Entry]
) -> Callable[[Entry], np.ndarray]:
    """Returns a function that reads an entry's array out of a state.

    Raises:
      ConfigError: entries of one name have different values: two optimizers, one name.
    """
    rule_state = next(
        leaf for leaf in jax.tree.leaves(state.opt_state, is_leaf=_is_rule) if _is_rule(leaf)
    )
    params = _flat(state.params)
    slots = {name: _flat(tree) for name, tree in rule_state.slots.items()}
    scalars: dict[str, Any] = {PARAMS: rule_state.scalars}
    for name, stack in state.tables["stacks"].items():
        scalars[_owner(name)] = stack["scalars"]

    def read(entry: Entry) -> np.ndarray:
        if entry.kind == "step":
            return np.asarray(state.step, np.int64)
        if entry.kind == "scalar":
            return np.asarray(scalars[entry.variable][entry.part])
        if entry.variable in params:
            held = slots[entry.part] if entry.part else params
            return np.asarray(held[entry.variable])
        table = entry.variable.removeprefix(f"{TABLES}/")
        if entry.part:
            return program.engine.table_slots(state.tables, table)[entry.part]
        return program.engine.table_rows(state.tables, table)

    _check_shared(made, read)
    return read


def _check_shared(made: Iterable[Entry], read: Callable[[Entry], np.ndarray]) -> None:
    first: dict[str, Entry] = {}
    for entry in made:
        if entry.kind == "scalar":
            other = first.setdefault(entry.tf, entry)
            if not np.array_equal(read(entry), read(other)):
                raise ConfigError(
                    f"{other.ours} and {entry.ours} differ, so they are two optimizers' in "
                    f"TensorFlow, but both are {entry.tf!r}: give [optimizers.{TABLES}] a scope "
                    "or a scalar_index in the names file"
                )


def _flat(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree of dense parameters by their paths."""
    return {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _path(path: Any) -> str:
    return f"{PARAMS}/{jax.tree_util.keystr(path, simple=True, separator='/')}"


def _owner(stack: str) -> str:
    return f"{TABLES}/{stack}"


def _is_rule(node: Any) -> bool:
    return isinstance(node, RuleState)


def _as_float(array: Any) -> Any:
    """Widens what a table's float32 arrays are filled with."""
    return None if array is None else np.asarray(array, np.float32)


def _put(value: Any, like: jax.Array) -> jax.Array:
    return jax.device_put(np.asarray(value).astype(like.dtype), like.sharding)


def _replaced(tree: Any, arrays: dict[tuple[str, str], np.ndarray], part: str) -> Any:
    def one(path: Any, leaf: jax.Array) -> jax.Array:
        key = (_path(path), part)
        return _put(arrays[key], leaf) if key in arrays else leaf

    return jax.tree_util.tree_map_with_path(one, tree)


def _with_rule_state(opt_state: Any, dense: Any, scalars: Any, step: int) -> Any:
    """Returns the optax state with the rule's count, scalars and slots replaced."""

    def one(node: Any) -> Any:
        if not _is_rule(node):
            return node
        kept = {k: _put(scalars[k], x) if k in scalars else x for k, x in node.scalars.items()}
        slots = {name: _replaced(tree, dense, name) for name, tree in node.slots.items()}
        return RuleState(_put(step, node.count), kept, slots)

    return jax.tree.map(one, opt_state, is_leaf=_is_rule)


def _with_scalars(tables: Any, scalars: dict[str, dict[str, np.ndarray]], step: int) -> Any:
    """Returns the tables' state at `step`, with their rules' scalars replaced."""
    stacks = {}
    for name, stack in tables["stacks"].items():
        mine = scalars.get(_owner(name), {})
        kept = {k: _put(mine[k], x) if k in mine else x for k, x in stack["scalars"].items()}
        stacks[name] = {**stack, "scalars": kept}
    return {**tables, "step": _put(step, tables["step"]), "stacks": stacks}
