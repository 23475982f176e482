"""One task on one topology: bytes, fit, traffic, bound, advice."""

import math
from dataclasses import dataclass
from typing import Any

import jax

from monolith_jax.embedding import XlaEngine
from monolith_jax.errors import ConfigError
from monolith_jax.planning.advice import advise
from monolith_jax.planning.chips import Chip, chip_of
from monolith_jax.planning.compiled import Compiled, compile_step
from monolith_jax.planning.topology import devices_of
from monolith_jax.planning.traffic import Bound, Traffic, bound_of, traffic_of
from monolith_jax.task import TaskConfig


@dataclass(frozen=True)
class TableBytes:
    """Bytes of one table on each chip, its share of padding included."""

    name: str
    rows: int
    dim: int
    values: int
    slots: int


@dataclass(frozen=True)
class Plan:
    """What a task needs on a topology; bytes, traffic and seconds per chip and step.

    Attributes:
      topology: its name.
      chip: the published figures.
      chips: how many.
      batch_size: examples, over all chips.
      tables: bytes of each table, the largest first.
      values: bytes of all tables' values.
      slots: bytes of all tables' slots.
      dense: bytes of the dense parameters and their optimizer's state.
      batch: bytes of the batch, its lookups above all.
      activations: bytes kept for the backward pass, within `temporary`.
      temporary: bytes beside the arguments while the step runs; 0 if the step does not fit.
      needs: bytes in all, program included; by the compiler.
      fits: whether the compiler found room.
      traffic: bytes moved and operations.
      bound: on the speed.
      engine: which keeps the tables, and why.
      advice: what would make it fit, or fit better.
      compile_seconds: that the compiler took.
      saved: the file that the compiled step is kept in; empty: none.
    """

    topology: str
    chip: Chip
    chips: int
    batch_size: int
    tables: tuple[TableBytes, ...]
    values: int
    slots: int
    dense: int
    batch: int
    activations: int
    temporary: int
    needs: int
    fits: bool
    traffic: Traffic
    bound: Bound
    engine: str
    advice: tuple[str, ...]
    compile_seconds: float
    saved: str = ""


def plan(task: TaskConfig, topology: str, *, name: str = "model", save: str = "") -> Plan:
    """Compiles a task's train step for a topology and returns what it needs there.

    No table is ever made, here or anywhere: all arrays are shapes.

    Args:
      task: the config; its data need not be there.
      topology: `CHIP:SIDES`, as in "v5e:16x16" or "v5p:4x4x4".
      name: the model's key, for the saved step.
      save: a folder to keep the compiled step in, for `train` on such devices; empty: none.

    Raises:
      ConfigError: no such topology, no TPU compiler, or a batch or tables that do not divide.
      StorageError: the step cannot be written.
    """
    chip, sides = chip_of(topology)
    devices = devices_of(topology)
    chips = math.prod(sides)
    per_chip = len(devices) // chips
    done = compile_step(task, devices)
    tables = _tables(task, done, chips)
    needs = done.needs * per_chip
    traffic = traffic_of(_stacks(task), done, len(devices), per_chip)
    values, slots = sum(t.values for t in tables), sum(t.slots for t in tables)
    return Plan(
        topology=topology,
        chip=chip,
        chips=chips,
        batch_size=task.input.batch_size,
        tables=tables,
        values=values,
        slots=slots,
        dense=per_chip * _bytes((done.state.params, done.state.opt_state)),
        batch=_bytes(done.batch) // chips,
        activations=per_chip * done.activations,
        temporary=per_chip * done.temporary,
        needs=needs,
        fits=done.fits,
        traffic=traffic,
        bound=bound_of(traffic, chip, sides, task.input.batch_size),
        engine=str(done.program.choice),
        advice=advise(task, tables, needs, chip, chips, done.fits),
        compile_seconds=done.seconds,
        saved=_saved(save, name, topology, done) if save else "",
    )


def _saved(folder: str, name: str, topology: str, done: Compiled) -> str:
    """Keeps a compiled step; returns where, empty if it does not fit and there is none."""
    if done.step is None:
        return ""
    from monolith_jax.ahead import save

    return save(folder, name, done.program, done.arguments_of, topology, done.step)


def save_on_cpus(task: TaskConfig, topology: str, devices: list[Any], name: str, save: str) -> str:
    """Compiles and keeps the step for CPU devices: the way to a TPU, rehearsed; returns the file.

    Raises:
      ConfigError: a batch or tables that do not divide over them.
      StorageError: the step cannot be written.
    """
    return _saved(save, name, topology, compile_step(task, devices))


def _stacks(task: TaskConfig) -> Any:
    """Returns the tables as they are stacked, the same for any number of devices."""
    return XlaEngine(task.tables, task.features, batch_size=task.input.batch_size).stacks


def _tables(task: TaskConfig, done: Compiled, chips: int) -> tuple[TableBytes, ...]:
    """Returns the tables by size; a stack's padding is shared out by rows."""
    found = []
    for stack in _stacks(task):
        total = sum(table.vocab_size for table in stack.tables)
        values, slots = _kept(done, stack.name)
        for table in stack.tables:
            share = table.vocab_size / total / chips
            found.append(
                TableBytes(
                    table.name,
                    table.vocab_size,
                    table.dim,
                    round(values * share),
                    round(slots * share),
                )
            )
    return tuple(sorted(found, key=lambda t: (-t.values - t.slots, t.name)))


def _kept(done: Compiled, name: str) -> tuple[float, float]:
    """Returns the bytes of a stack's values and slots; a record's padding is shared by lanes."""
    stacks = done.state.tables["stacks"]
    if "value" in stacks[name]:
        return _bytes(stacks[name]["value"]), _bytes(stacks[name]["slots"])
    engine: Any = done.program.engine
    (record,) = (r for r in engine.records.values() if name in r.places)
    lane = _bytes(stacks[record.name]["records"]) / record.lanes
    places = record.places[name]
    slots = sum(place.lanes for place in places["slots"].values())
    return lane * places["value"].lanes, lane * slots


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def plans(task: TaskConfig, topologies: str, *, name: str = "model", save: str = "") -> list[Plan]:
    """Returns a plan for each of the topologies, given with commas between them; else as `plan`.

    Raises:
      ConfigError: as `plan`; or none given.
    """
    names = split(topologies)
    for each in names:
        chip_of(each)
    return [plan(task, each, name=name, save=save) for each in names]


def split(topologies: str) -> list[str]:
    """Returns the names of topologies that are given with commas between them.

    Raises:
      ConfigError: none given.
    """
    names = [name.strip() for name in topologies.split(",") if name.strip()]
    if not names:
        raise ConfigError("no topology: give one, as in v5p:4x4x4")
    return names
