"""A saved step of the engine of SparseCores, emulated: taken as one of the xla engine is."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.ahead import SavedSteps, save
from monolith_jax.embedding.sparsecore import SparseCoreEngine, SparseCores, library_missing
from monolith_jax.input import Batch
from monolith_jax.planning.compiled import compile_step
from monolith_jax.task import TaskConfig
from monolith_jax.training import engines
from monolith_jax.training.program import Program

pytestmark = pytest.mark.skipif(
    bool(library_missing()), reason=library_missing() or "it is installed"
)

BATCH, USERS = 2048, 100_000


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every device has two SparseCores."""
    with_cores = functools.partial(SparseCoreEngine, emulated=SparseCores(2, 4096))
    monkeypatch.setattr(engines, "SparseCoreEngine", with_cores)
    monkeypatch.setattr(engines, "engine_refusals", lambda task, devices: ())


@pytest.fixture
def task(small: TaskConfig) -> TaskConfig:
    (table,) = small.tables
    size = dataclasses.replace(small.input, batch_size=BATCH)
    return dataclasses.replace(
        small, input=size, tables=(dataclasses.replace(table, vocab_size=USERS),)
    )


@pytest.fixture
def saved(task: TaskConfig, tmp_path: Path) -> Path:
    done = compile_step(task, jax.devices()[:2])
    assert done.program.choice.name == "sparsecore"
    return Path(save(str(tmp_path), "small", done.program, done.arguments_of, "v5p", done.step))


def with_saved(task: TaskConfig, saved: Path) -> tuple[Program, list[str]]:
    said: list[str] = []
    program = Program(task, jax.devices()[:2])
    program.train_step = SavedSteps(program, "small", str(saved.parent), said.append)
    return program, said


def run(program: Program, batch: Batch) -> Any:
    return program.train_step(program.init(0), program.empty_window(), program.prepare(batch))


def of_users(batch: Callable[..., Batch], users: int, apart: int) -> Batch:
    """Returns a batch of so many users, whose ids are so far apart."""
    made = batch(0, BATCH)
    ids = made.columns["user"] % users * apart
    return dataclasses.replace(made, columns=made.columns | {"user": ids})


def test_it_is_taken_and_leaves_the_same_bits(
    task: TaskConfig, saved: Path, batch: Callable[..., Batch]
) -> None:
    """By batches that want less, too: those are given its limits."""
    few = of_users(batch, 100, USERS // 100)
    program, said = with_saved(task, saved)
    plain = Program(task, jax.devices()[:2])
    (ours,), (theirs,) = (p.prepare(few)["lookups"].values() for p in (program, plain))
    assert ours.max_rows > theirs.max_rows
    got = run(program, few)
    assert [line.partition(",")[0] for line in said] == [f"took {saved}"]
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(run(plain, few)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batch_that_wants_more_compiles_its_own(
    task: TaskConfig, saved: Path, batch: Callable[..., Batch]
) -> None:
    """Of rows that lie on one SparseCore."""
    program, said = with_saved(task, saved)
    run(program, of_users(batch, 16, 1))
    (line,) = said
    assert line.startswith(f"{saved} is not taken: batch/lookups/dim8_adagrad/")
    assert line.endswith("; compiling")


def test_limits_tell_programs_apart_whose_shapes_are_alike(
    task: TaskConfig, saved: Path, batch: Callable[..., Batch]
) -> None:
    program, said = with_saved(task, saved)
    prepared = program.prepare(of_users(batch, 100, USERS // 100))
    ((name, asked),) = prepared["lookups"].items()
    prepared["lookups"][name] = dataclasses.replace(asked, max_ids=512)
    assert program.train_step.find((program.init(0), program.empty_window(), prepared)) is None
    assert said == [
        f"{saved} is not taken: room.{name}.ids: {asked.max_ids} saved, 512 here; compiling"
    ]


def test_the_other_engine_does_not_take_it(task: TaskConfig, saved: Path) -> None:
    plain = dataclasses.replace(task, train=dataclasses.replace(task.train, engine="xla"))
    _, said = with_saved(plain, saved)
    assert said == [
        f"{saved} is not taken: engine: sparsecore saved, xla here",
        "the step is compiled here",
    ]
