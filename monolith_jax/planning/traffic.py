"""What a step moves and computes on one chip, and the bound on its speed that follows.

Counted by rows and arrays, not taken from XLA's cost model, which charges a gather with its whole
table. As if nothing stayed on the chip between two uses, per device:

    rows      U (2 v + 2 s)          each row that is moved and its slots, once in and once out
    exchange  4 E r                  received and sent, forward and backward (D > 1)
    ids       3 b r                  each id's row read forward; its gradient read and added
    dense     P (4 + 2 k) 4 + 2 A    parameters, gradients, k slots; activations out and in

U rows that a device moves: the touched ones and, where lines or words are moved, those beside them
(`embedding._reach`); v and s the bytes of a row's value and slots as they are stored, D devices, E
the rows that one receives of all others: D (C + 2 R) by buckets of C rows and a relay's two hops of
R (`embedding._relay`), or what the ragged exchange has room for; r = 4 dim, b ids of a device's
examples, P dense parameters, A the activations' bytes. TF's Adam moves every row: there U is all of
them.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax

from monolith_jax.embedding.sparsecore import SparseCoreEngine
from monolith_jax.planning.chips import Chip
from monolith_jax.planning.compiled import Compiled
from monolith_jax.planning.traffic_cores import core_traffic


@dataclass(frozen=True)
class Traffic:
    """Bytes and operations of one step on one chip.

    Attributes:
      rows: bytes of touched rows and slots, in and out of memory; the next three likewise.
      exchange: of rows received from and sent to other devices.
      ids: of each id's row.
      dense: of the dense parameters and activations.
      sent: bytes of rows and their gradients that go to other devices.
      reduced: bytes that the sum of the dense gradients sends to other devices.
      flops: multiplications and additions.
    """

    rows: float
    exchange: float
    ids: float
    dense: float
    sent: float
    reduced: float
    flops: float

    @property
    def hbm(self) -> float:
        """Bytes in and out of the chip's memory."""
        return self.rows + self.exchange + self.ids + self.dense


def traffic_of(stacks: Any, done: Compiled, devices: int, per_chip: int) -> Traffic:
    """Returns the traffic of a step.

    Args:
      stacks: the engine's tables.
      done: the compiled step, whose shapes are counted.
      devices: over all chips.
      per_chip: devices of a chip.
    """
    rows = exchange = ids = sent = 0.0
    others = (devices - 1) / devices
    for stack in stacks:
        if isinstance(done.program.engine, SparseCoreEngine):
            more = core_traffic(done.program.engine, stack)
            rows, exchange = rows + more[0], exchange + more[1]
            ids, sent = ids + more[2], sent + more[3]
            continue
        lead = done.program.engine.leads[stack.name].name
        arrays, asked = done.state.tables["stacks"][stack.name], done.batch["lookups"][lead]
        physical, row = stack.layout.physical_rows, 4 * stack.layout.dim
        stored = sum(_bytes(leaf) for leaf in jax.tree.leaves(arrays) if leaf.shape)
        touched = physical if stack.rule.touches_all_rows else _moved(done, lead, asked)
        rows += 2 * touched / devices * stored / physical
        ids += 3 * math.prod(asked.index.shape) / devices * row
        if devices > 1:
            received = _received(asked, devices) * row
            exchange += 4 * received
            sent += 2 * received * others
    parameters = sum(leaf.size for leaf in jax.tree.leaves(done.state.params))
    state = sum(_bytes(leaf) for leaf in jax.tree.leaves(done.state.opt_state))
    dense = 16.0 * parameters + 2.0 * state + 2.0 * done.activations
    # A sum over a ring: every part goes round once to be added up, once to be told.
    each = (rows, exchange, ids, dense, sent, 2 * 4 * parameters * others, done.flops)
    return Traffic(*(per_chip * value for value in each))


def _moved(done: Compiled, name: str, asked: Any) -> int:
    """Returns the rows that a stack's lookups move, of all devices: all of a line, of lines."""
    if asked.lines is None:
        return int(asked.rows.shape[0])
    return int(asked.lines.shape[0] * done.program.engine.reach[name].rows)


def _received(asked: Any, devices: int) -> int:
    """Returns the rows that arrive at a device; those that a relay passes on arrive twice."""
    if asked.parts is not None:
        return int(asked.received)
    hops = 0 if asked.relay is None else asked.relay.shape[2]
    return int(devices * (asked.send.shape[2] + 2 * hops))


def _bytes(leaf: Any) -> int:
    return int(leaf.size * leaf.dtype.itemsize)


@dataclass(frozen=True)
class Bound:
    """Seconds of a step on each resource, and the samples/s per chip that they allow at most."""

    memory: float
    compute: float
    links: float
    samples: float
    limit: str


def bound_of(traffic: Traffic, chip: Chip, sides: tuple[int, ...], batch: int) -> Bound:
    """Returns the bound: `samples/s/chip = (batch / chips) / max(memory, compute, links)`.

        memory   HBM bytes / HBM rate
        compute  operations / bfloat16 rate
        links    the larger of: (sent + reduced) / (ICI rate / 2), what the chip can send;
                 sent * k / (4 w link rate), what the narrowest cut through the slice lets by: k
                 its longest side, w = 2 if that is a ring, else 1 (rows go to any device, half of
                 them across the cut; the gradients' sum crosses it once)

    All resources are taken to be fully used, at the same time: a real step is slower.
    """
    memory, compute = traffic.hbm / chip.hbm_rate, traffic.flops / chip.flops
    longest = max(sides)
    wrap = 2 if chip.wraps(longest) else 1
    cut = traffic.sent * longest / (4 * wrap * chip.link_rate)
    links = (
        max((traffic.sent + traffic.reduced) / (chip.ici_rate / 2), cut)
        if math.prod(sides) > 1
        else 0.0
    )
    times = {"memory": memory, "compute": compute, "links": links}
    limit = max(times, key=lambda name: times[name])
    return Bound(memory, compute, links, batch / math.prod(sides) / times[limit], limit)
