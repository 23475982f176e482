"""The compiled step: donated in full, no copy of a table, the same on any number of devices."""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.errors import DataError, UserError
from monolith_jax.input import Batch
from monolith_jax.models import DeepFMConfig
from monolith_jax.optimizers import Adam, Momentum
from monolith_jax.planning.expected import expected_batch
from monolith_jax.task import InputConfig, TaskConfig
from monolith_jax.training import Program, devices_for, training_dataset

Changed = Callable[..., TaskConfig]
LARGE = 300_000


@pytest.fixture(scope="module")
def large(task: TaskConfig, changed: Changed) -> TaskConfig:
    """The small task with a table that no batch could be mistaken for."""
    import dataclasses

    rule = Momentum(learning_rate=0.1, momentum=0.9)
    tables = [dataclasses.replace(t, optimizer=rule) for t in task.tables]
    tables[0] = dataclasses.replace(tables[0], vocab_size=LARGE)
    return changed(task, tables=tuple(tables))


def compiled(task: TaskConfig) -> tuple[Any, Any, int]:
    """Returns the compiled step, the abstract state, and the devices it runs on."""
    program = Program(task, devices_for(task))
    batch = program.prepare(training_dataset(task).batch(0))
    state = program.abstract_state()
    step = program.train_step.lower(state, program.empty_window(), batch).compile()
    return step, state, program.mesh.devices.size


@pytest.mark.parametrize("devices", [1, 8])
def test_no_copy_of_a_table_and_no_temporary_of_its_size(
    large: TaskConfig, changed: Changed, devices: int
) -> None:
    step, state, _ = compiled(changed(large, train={"devices": devices}))
    shapes = {
        ",".join(map(str, leaf.sharding.shard_shape(leaf.shape)))
        for leaf in jax.tree.leaves(state.tables)
        if leaf.size >= LARGE
    }
    assert shapes
    text = step.as_text()
    for shape in shapes:
        assert f"f32[{shape}]" in text
        assert not re.search(rf"f32\[{shape}\]\S* copy\(", text)
    table_bytes = LARGE * 8 * 4 // devices
    assert step.memory_analysis().temp_size_in_bytes < table_bytes / 10


@pytest.mark.parametrize("devices", [1, 8])
def test_the_whole_state_is_donated(large: TaskConfig, changed: Changed, devices: int) -> None:
    step, state, _ = compiled(changed(large, train={"devices": devices}))
    size = sum(
        np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=int) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )
    assert step.memory_analysis().alias_size_in_bytes >= size


def test_no_gradient_of_a_table_exists(large: TaskConfig) -> None:
    step, state, _ = compiled(large)
    tables = sum(leaf.size >= LARGE for leaf in jax.tree.leaves(state.tables))
    assert tables == 2  # the stacked table, and momentum
    full = [leaf.shape for leaf in jax.tree.leaves(state.tables) if leaf.size >= LARGE]
    shape = ",".join(map(str, full[0]))
    text = step.as_text()
    made = re.findall(rf"= f32\[{shape}\]\S* (\w[\w-]*)\(", text)
    in_place = {"parameter", "scatter", "fusion", "bitcast", "while", "get-tuple-element"}
    assert set(made) <= in_place
    # Rows are changed by a kernel, in the tables themselves.
    target = 'custom_call_target="monolith_jax_update_rows'
    calls = (line for line in text.splitlines() if target in line)
    (call,) = (line for line in calls if f"f32[{shape}]" in line)
    assert call.split("custom-call(")[0].count(f"f32[{shape}]") == tables
    assert "output_to_operand_aliasing={{0}: (0, {}), {1}: (1, {})}" in call


@pytest.mark.parametrize("devices", [1, 8])
def test_on_cpus_at_most_the_vectors_and_their_gradients_are_in_memory(devices: int) -> None:
    """Gradients are added up in place, and summed by row when the vectors are gone."""
    names, batch, dim = tuple("abcdefgh"), 4096 * devices, 32
    task = TaskConfig(
        input=InputConfig(batch_size=batch),
        tables=tuple(TableConfig(name=name, vocab_size=100, dim=dim) for name in names),
        features=tuple(FeatureConfig(name=name, table=name) for name in names),
        model=DeepFMConfig(vectors=names, hidden=(8,)),
    )
    program = Program(task, jax.devices()[:devices])
    given = program.abstract_state(), program.abstract_checkpoint()["window"]
    step = program.train_step.lower(*given, expected_batch(program)).compile()
    vectors = batch // devices * len(names) * dim * 4
    assert 2 * vectors < step.memory_analysis().temp_size_in_bytes < 2.5 * vectors


def test_initial_values_do_not_depend_on_the_devices(task: TaskConfig, changed: Changed) -> None:
    one, eight = (
        Program(t, devices_for(t)).init(3) for t in (task, changed(task, train={"devices": 8}))
    )
    jax.tree.map(np.testing.assert_array_equal, one, eight)


def test_weight_zero_examples_do_not_count(task: TaskConfig) -> None:
    program = Program(task, devices_for(task))
    batch = training_dataset(task).batch(6)  # the epoch's tail: 200 = 6 * 32 + 8
    assert batch.weights.sum() == 8
    prepared = program.prepare(batch)
    state, window = program.train_step(program.init(0), program.empty_window(), prepared)
    columns = {name: np.array(c) for name, c in batch.columns.items() if name == "label"}
    columns["label"][8:] = 1.0 - columns["label"][8:]
    flipped = program.prepare(Batch({**batch.columns, **columns}, batch.weights))
    other, other_window = program.train_step(program.init(0), program.empty_window(), flipped)
    jax.tree.map(np.testing.assert_array_equal, (state, window), (other, other_window))
    assert float(window["weight"]) == 8


def test_the_embedding_penalty_is_that_of_the_config(task: TaskConfig, changed: Changed) -> None:
    without, penalized = task, changed(task, embedding_l2=0.5)
    losses = []
    for config in (without, penalized):
        program = Program(config, devices_for(config))
        batch = program.prepare(training_dataset(config).batch(0))
        state = program.init(0)
        rows = program.engine.gather(state.tables, batch["lookups"])
        embeddings = program.engine.combine(rows, batch["lookups"])
        norms = sum(np.square(np.asarray(e, np.float64)).sum(-1) for e in embeddings.values())
        _, window = program.train_step(state, program.empty_window(), batch)
        losses.append(float(window["loss"]) / 32)
    assert losses[1] - losses[0] == pytest.approx(0.5 * norms.mean(), rel=1e-4)


def test_weight_decay_reaches_the_dense_parameters(task: TaskConfig, changed: Changed) -> None:
    decayed = changed(task, weight_decay=0.1, optimizer=Adam(learning_rate=0.01))
    programs = [Program(t, devices_for(t)) for t in (changed(decayed, weight_decay=0.0), decayed)]
    states = []
    for program in programs:
        batch = program.prepare(training_dataset(program.task).batch(0))
        states.append(program.train_step(program.init(0), program.empty_window(), batch)[0])
    differ = jax.tree.map(lambda a, b: bool((a != b).any()), states[0].params, states[1].params)
    assert any(jax.tree.leaves(differ))
    jax.tree.map(np.testing.assert_array_equal, states[0].tables, states[1].tables)


@pytest.mark.parametrize("label", [2.0, float("nan")])
def test_labels_outside_of_0_and_1_are_refused(task: TaskConfig, label: float) -> None:
    program = Program(task, devices_for(task))
    batch = training_dataset(task).batch(0)
    labels = np.array(batch.columns["label"])
    labels[3] = label
    with pytest.raises(DataError, match="label column 'label': logloss wants labels within"):
        program.prepare(Batch({**batch.columns, "label": labels}, batch.weights))


def test_a_dense_column_of_another_length_is_refused(task: TaskConfig, changed: Changed) -> None:
    """One value would do for all examples by numpy's broadcasting."""
    program = Program(changed(task, dense=("label",)), devices_for(task))
    batch = training_dataset(task).batch(0)
    whole = program.prepare(batch)["dense"]
    np.testing.assert_array_equal(whole[:, 0], batch.columns["label"])
    columns = {**batch.columns, "one": np.ones(1, np.float32)}
    other = Program(changed(task, dense=("one",)), devices_for(task))
    with pytest.raises(ValueError, match="shape"):
        other.prepare(Batch(columns, batch.weights))


def test_a_module_with_more_than_parameters_is_refused(task: TaskConfig, changed: Changed) -> None:
    import flax.linen as nn

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, embeddings: Any, dense: jax.Array) -> jax.Array:
            return nn.BatchNorm(use_running_average=False)(embeddings["user"])[:, 0]

    program = Program(changed(task, model=Normed()), devices_for(task))
    with pytest.raises(UserError, match=r"Normed has the variable collections \['batch_stats'\]"):
        program.init(0)


def test_a_plain_linen_module_is_a_model(task: TaskConfig, changed: Changed) -> None:
    import flax.linen as nn

    class Linear(nn.Module):
        @nn.compact
        def __call__(self, embeddings: Any, dense: jax.Array) -> jax.Array:
            return nn.Dense(1)(embeddings["user"])[:, 0]

    config = changed(task, model=Linear())
    program = Program(config, devices_for(config))
    batch = program.prepare(training_dataset(config).batch(0))
    state, window = program.train_step(program.init(0), program.empty_window(), batch)
    assert int(state.step) == 1
    assert float(window["weight"]) == 32


def test_an_nnx_module_is_a_model_through_the_bridge(task: TaskConfig, changed: Changed) -> None:
    from flax import nnx

    class Linear(nnx.Module):
        def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
            self.dense = nnx.Linear(width, 1, rngs=rngs)

        def __call__(self, embeddings: Any, dense: jax.Array) -> jax.Array:
            return self.dense(embeddings["user"])[:, 0]

    config = changed(task, model=nnx.bridge.ToLinen(Linear, args=(8,)))
    program = Program(config, devices_for(config))
    batch = program.prepare(training_dataset(config).batch(0))
    before = program.init(0)
    kernel = np.asarray(jax.tree.leaves(before.params)[-1])
    state, _ = program.train_step(before, program.empty_window(), batch)
    assert not np.array_equal(kernel, np.asarray(jax.tree.leaves(state.params)[-1]))
