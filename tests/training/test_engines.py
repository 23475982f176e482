"""Which engine keeps the tables, and whole runs that change it: state, checkpoints, metrics."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.embedding import XlaEngine
from monolith_jax.embedding.sparsecore import SparseCoreEngine, SparseCores, library_missing
from monolith_jax.errors import ConfigError
from monolith_jax.optimizers import LazyAdam, RowwiseAdagrad
from monolith_jax.task import TaskConfig
from monolith_jax.training import Program, engines, train
from monolith_jax.training.engines import choose, engine_refusals

Changed = Callable[..., TaskConfig]


class Device:
    """A device of a kind."""

    def __init__(self, kind: str) -> None:
        self.device_kind = kind


CHIPS = ["TPU v5", "TPU v6 lite", "TPU7x"]
V5P = [Device("TPU v5")] * 4


@pytest.fixture
def made(task: TaskConfig, changed: Changed) -> Callable[..., TaskConfig]:
    """Makes the task of a batch of 64, with other fields of `train`."""

    def make(batch_size: int = 64, **train: Any) -> TaskConfig:
        return changed(task, input={"batch_size": batch_size}, train=train)

    return make


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library counts as installed, on Python 3.11 too."""
    module = "monolith_jax.embedding.sparsecore.refused.library_missing"
    monkeypatch.setattr(module, lambda: "")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("kind", CHIPS)
def test_sparsecores_are_chosen_where_they_serve(kind: str, made: Changed) -> None:
    choice = choose(made(), [Device(kind)] * 4)
    assert choice.name == "sparsecore"
    assert "SparseCores of each device keep all tables" in choice.reason
    assert choose(made(engine="xla"), [Device(kind)]).name == "xla"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip_norm": 1.0}, "train.clip_norm 1.0: SparseCores sum and use the gradients"),
        ({"gradient_norms": True}, "train.gradient_norms True"),
        ({"batch_size": 68}, "batch_size 68 does not divide over 16 SparseCores"),
    ],
)
def test_a_task_that_they_cannot_serve(changes: Any, said: str, made: Changed) -> None:
    choice = choose(made(**changes), V5P)
    assert choice.name == "xla"
    assert said in choice.reason
    with pytest.raises(ConfigError, match=rf"train\.engine sparsecore cannot serve: .*{said}"):
        choose(made(engine="sparsecore", **changes), V5P)


def test_a_forced_engine_names_the_table_and_the_reason(made: Changed) -> None:
    task = made(engine="sparsecore")
    first, *rest = task.tables
    bad = dataclasses.replace(first, optimizer=RowwiseAdagrad(learning_rate=0.1))
    task = dataclasses.replace(task, tables=(bad, *rest))
    with pytest.raises(ConfigError, match=f"table '{first.name}': RowwiseAdagrad keeps one"):
        choose(task, V5P)
    with pytest.raises(ConfigError, match="cpu has no SparseCores"):
        Program(task, jax.devices()[:1])


@pytest.mark.parametrize("kind", ["TPU v4", "TPU v5 lite", "cpu"])
def test_other_devices_take_the_xla_engine(kind: str, made: Changed) -> None:
    choice = choose(made(), [Device(kind)])
    assert choice.name == "xla"
    assert f"{kind} has no SparseCores" in choice.reason
    assert engine_refusals(made(), [Device(kind)])


def _emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    emulated = functools.partial(SparseCoreEngine, emulated=SparseCores(2, 4096))
    monkeypatch.setattr(engines, "SparseCoreEngine", emulated)
    monkeypatch.setattr(engines, "engine_refusals", lambda task, devices: ())


@pytest.mark.skipif(bool(library_missing()), reason=library_missing() or "it is installed")
def test_a_run_changes_its_engine_at_every_checkpoint(
    made: Changed, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """xla, then (emulated) SparseCores, then xla again, beside a run on xla alone.

    With the engine changes how tables are sharded.
    """
    plain = train(made(200, devices=2, engine="xla"), str(tmp_path / "plain"), show=False)
    for epochs, engine in ((1, "xla"), (2, "auto"), (3, "xla")):
        with monkeypatch.context() as patch:
            if engine == "auto":
                _emulate(patch)
            task = made(200, devices=2, engine=engine, epochs=epochs)
            how: Any = "div" if engine == "auto" else "mod"
            tables = tuple(dataclasses.replace(table, sharding=how) for table in task.tables)
            task = dataclasses.replace(task, tables=tables)
            wanted = "sparsecore" if engine == "auto" else "xla"
            assert Program(task, jax.devices()[:2]).choice.name == wanted
            found = train(task, str(tmp_path / "changing"), show=False)
    assert found["step"] == plain["step"]
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        if isinstance(value, float) and "second" not in name:
            np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_a_run_changes_its_form_at_every_checkpoint(
    made: Changed, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, then records with a bias beside its vector, then rows: the numbers of rows alone."""

    def biased(epochs: int) -> TaskConfig:
        task = made(64, devices=2, engine="xla", epochs=epochs)
        alone = ("user", "user_bias")
        rule = LazyAdam(learning_rate=0.01)
        tables = [
            dataclasses.replace(table, optimizer=rule if table.name in alone else table.optimizer)
            for table in task.tables
        ]
        return dataclasses.replace(task, tables=tuple(tables))

    plain = train(biased(3), str(tmp_path / "plain"), show=False)
    for epochs in (1, 2, 3):
        with monkeypatch.context() as patch:
            if epochs == 2:
                patch.setattr(engines, "XlaEngine", functools.partial(XlaEngine, form="records"))
            engine: Any = Program(biased(epochs), jax.devices()[:2]).engine
            biases = [
                name
                for r in engine.records.values()
                for b in r.biases
                for name in (t.name for t in b.tables)
            ]
            assert biases == (["user_bias"] if epochs == 2 else [])
            found = train(biased(epochs), str(tmp_path / "changing"), show=False)
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        if "second" not in name:
            assert found[name] == value, name
