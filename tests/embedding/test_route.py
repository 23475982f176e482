"""Routes: every id finds its row, and each process makes its own devices' part of one whole."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.embedding._ids import physical_rows
from monolith_jax.embedding._lookups import StackLookups
from monolith_jax.embedding._marks import PairScratch
from monolith_jax.embedding._none import NONE
from monolith_jax.embedding._pairs import pairs_of
from monolith_jax.embedding._placement import Placement
from monolith_jax.embedding._prepare import Preparer
from monolith_jax.embedding._stacks import Stack, build_stacks

SHARDS = 16


@st.composite
def cases(draw: Any) -> tuple[Stack, dict[str, np.ndarray], int, int, bool]:
    """A stack, a batch, devices, rows of a unit, and whether rows travel by the ragged exchange."""
    devices = draw(st.sampled_from([2, 4, 8, 16]))
    dim, vocab = draw(st.sampled_from([1, 5, 32, 128])), draw(st.sampled_from([37, 2000, 50_000]))
    kind: Any = draw(st.sampled_from(["mod", "div"]))
    tables = [TableConfig(name=n, vocab_size=vocab, dim=dim, sharding=kind) for n in "ab"]
    features = [FeatureConfig(name=n, table=n, max_length=k) for n, k in (("a", 1), ("b", 3))]
    (stack,) = build_stacks(tables, features, SHARDS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batch = devices * draw(st.sampled_from([1, 5, 64, 300]))
    skew = draw(st.sampled_from([1.0, 6.0]))
    columns = {
        n: (vocab * rng.random((batch, k)) ** skew).astype(np.int64)
        for n, k in (("a", 1), ("b", 3))
    }
    if draw(st.booleans()):  # the first device asks one owner for most
        hot = columns["b"][: batch // devices]
        hot[...] = np.minimum(hot // SHARDS * SHARDS + 3, vocab - 1)
    columns["b"][rng.random((batch, 3)) < 0.1] = -1
    pack = stack.layout.pack
    unit = draw(st.sampled_from(sorted({1, max(1, pack // 4), pack})))
    return stack, columns, devices, unit, draw(st.booleans())


def prepared(case: Any, mine: np.ndarray | None = None) -> StackLookups:
    stack, columns, devices, unit, ragged = case
    batch = len(columns["a"])
    names = [stack.name] if ragged else []
    preparer = Preparer([stack], batch, devices, {stack.name: unit}, ragged=names, mine=mine)
    (first,), (again,) = (preparer(columns).values() for _ in range(2))
    for one, other in zip(arrays(first), arrays(again), strict=True):
        np.testing.assert_array_equal(one, other)  # the scratch is as new after a batch
    return first


def arrays(lookups: StackLookups) -> list[np.ndarray]:
    found = [getattr(lookups, field.name) for field in dataclasses.fields(lookups)]
    return [array for array in found if isinstance(array, np.ndarray)]


def received(lookups: StackLookups, devices: int, block: int, pack: int) -> list[np.ndarray]:
    """Returns the rows that each device receives, by what the arrays are documented to mean."""
    rows = lookups.rows.reshape(devices, -1)

    def taken(have: np.ndarray, places: np.ndarray) -> np.ndarray:
        there = places != NONE
        return np.where(there, have[np.where(there, places, 0)], -1)

    held = [
        np.where(rows[i] < block, rows[i] + i * block, -1).astype(np.int64) for i in range(devices)
    ]
    send = lookups.send
    if lookups.parts is not None:
        leaves, lines, arrives = (lookups.parts[:, i] * pack for i in range(3))
        found = [np.full(lookups.received, -1) for _ in range(devices)]
        for owner in range(devices):
            sent = taken(held[owner], send[owner])
            for asker in range(devices):
                here, n, there = (x[owner, asker] for x in (leaves, lines, arrives))
                found[asker][there : there + n] = sent[here : here + n]
        return found
    found = [
        np.concatenate([taken(held[owner], send[owner, asker]) for owner in range(devices)])
        for asker in range(devices)
    ]
    if lookups.relay is None:
        return found
    passed = [
        np.concatenate([taken(held[owner], lookups.relay[owner, via]) for owner in range(devices)])
        for via in range(devices)
    ]
    for asker in range(devices):
        more = [taken(passed[via], lookups.forward[via, asker]) for via in range(devices)]
        found[asker] = np.concatenate([found[asker], *more])
    return found


@given(cases())
@settings(max_examples=80)
def test_every_id_finds_its_row(case: Any) -> None:
    stack, columns, devices, unit, _ = case
    lookups = prepared(case)
    block = stack.layout.physical_rows // devices
    want = physical_rows(stack, columns, len(columns["a"]))
    each = len(want) // devices
    for asker, have in enumerate(received(lookups, devices, block, stack.layout.pack)):
        part = slice(asker * each, (asker + 1) * each)
        index, there = lookups.index[part], want[part] >= 0
        np.testing.assert_array_equal(index == NONE, ~there)
        np.testing.assert_array_equal(have[index[there]], want[part][there])
    rows = lookups.rows.reshape(devices, -1)
    for owner in range(devices):
        inside = rows[owner] < block
        mine = want[want // block == owner]
        np.testing.assert_array_equal(rows[owner][inside], np.unique(mine) - owner * block)
        assert (np.diff(rows[owner]) > 0).all()
        if unit > 1:
            lines = lookups.lines.reshape(devices, -1)[owner]
            slot = lookups.slot.reshape(devices, -1)[owner]
            found = lines[slot[inside] // unit] * unit + slot[inside] % unit
            np.testing.assert_array_equal(found, rows[owner][inside])
            assert (slot[~inside] == NONE).all()


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=80)
def test_each_process_makes_its_part_of_the_whole(case: Any, seed: int) -> None:
    """Devices of one process need not lie side by side; shapes are the same in all of them."""
    devices = case[2]
    whole = arrays(prepared(case))
    rng = np.random.default_rng(seed)
    process = rng.permutation(np.arange(devices) % rng.choice([2, min(4, devices), devices]))
    for one in np.unique(process):
        mine = process == one
        for part, wanted in zip(arrays(prepared(case, mine)), whole, strict=True):
            assert (part.shape, part.dtype) == (wanted.shape, wanted.dtype)
            part, wanted = part.reshape(devices, -1), wanted.reshape(devices, -1)
            np.testing.assert_array_equal(part[mine], wanted[mine])
            assert not part[~mine].any()


def test_ids_of_others_are_counted_and_not_listed() -> None:
    rows = np.arange(64).reshape(1, 64) * 3 % 50
    mine = np.array([False, True, False, False])
    pairs = pairs_of(rows, 16, mine, 4, PairScratch(16))
    parts = np.split(rows[0], 4)
    counts = [[len(np.unique(part[part // 16 == owner])) for part in parts] for owner in range(4)]
    np.testing.assert_array_equal(pairs.counts, counts)
    np.testing.assert_array_equal(pairs.owned, [16, 16, 16, 2])
    np.testing.assert_array_equal(pairs.units, [4, 4, 4, 1])
    np.testing.assert_array_equal(pairs.rows, np.arange(16, 32))
    wanted = [np.unique(part[part // 16 == 1]) - 16 for part in parts]
    np.testing.assert_array_equal(pairs.places, np.concatenate(wanted))


class Device:
    """As much of a device as a mesh is asked for."""

    def __init__(self, process: int) -> None:
        self.process_index = process


def test_a_process_has_the_devices_that_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    class Mesh:
        axis_names = ("other", "data")
        shape = {"other": 1, "data": 6}  # noqa: RUF012
        devices = np.array([[Device(p) for p in (0, 1, 0, 2, 1, 0)]])

    mesh: Any = Mesh()
    assert Placement(mesh, "data").mine.tolist() == [True] * 6
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert Placement(mesh, "data").mine.tolist() == [False, True, False, False, True, False]
