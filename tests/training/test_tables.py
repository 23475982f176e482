"""Sequences, weights, hashing and bfloat16 tables through the whole step, from files on."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.input import Column
from monolith_jax.task import TaskConfig
from monolith_jax.training import Program, devices_for, metrics, training_dataset

Changed = Callable[..., TaskConfig]
STEPS = 4


class Attention(nn.Module):
    """The tags of an example, weighed by how they go with user and item."""

    @nn.compact
    def __call__(self, embeddings: Mapping[str, jax.Array], dense: jax.Array) -> jax.Array:
        tags, mask = embeddings["tags"], embeddings["tags/mask"]
        asked = embeddings["user"] + embeddings["item"]
        scores = jnp.where(mask, (tags * asked[:, None]).sum(-1), -1e9)
        tags = (jax.nn.softmax(scores)[:, :, None] * tags).sum(1)
        both = jnp.concatenate([tags, embeddings["user"] * embeddings["item"], dense], axis=1)
        return nn.Dense(1)(both)[:, 0]


@pytest.fixture(scope="module")
def rich(task: TaskConfig, changed: Changed) -> TaskConfig:
    """A task that uses all of it at once."""
    tables = (
        TableConfig(name="user", vocab_size=50, dim=8, dtype="bfloat16"),
        TableConfig(name="item", vocab_size=9, dim=8, gradient_multiplier=0.5),
        TableConfig(name="item_q", vocab_size=5, dim=8),
        TableConfig(name="tags", vocab_size=12, dim=8, dtype="bfloat16"),
    )
    features = (
        FeatureConfig(name="user", table="user", weights="hour"),
        FeatureConfig(name="item", table="item", quotient_table="item_q"),
        FeatureConfig(name="tags", table="tags", sequence=True, max_length=3),
    )
    return changed(
        task,
        tables=tables,
        features=features,
        model=Attention(),
        embedding_l2=0.01,
        train={"clip_norm": 0.05, "gradient_norms": True},
    )


def train(task: TaskConfig, stop: int | None = None) -> tuple[dict[str, Any], dict[str, float]]:
    """Returns every array after STEPS steps, and the metrics; `stop`: through the host there."""
    program = Program(task, devices_for(task))
    data = training_dataset(task)
    state, window = program.init(0), program.empty_window()
    for k in range(STEPS):
        if k == stop:
            held = jax.tree.map(np.asarray, (state, window))
            program = Program(task, devices_for(task))
            shardings = jax.tree.map(lambda x: x.sharding, program.abstract_checkpoint())
            state, window = jax.device_put(held, (shardings["state"], shardings["window"]))
        state, window = program.train_step(state, window, program.prepare(data.batch(k)))
    found = {t.name: program.engine.table_rows(state.tables, t.name) for t in task.tables}
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    found |= {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return found, metrics.summarize(jax.device_get(window), task.loss)


@pytest.fixture(scope="module")
def trained(rich: TaskConfig) -> Any:
    """The task trained without a stop."""
    return train(rich)


def test_the_columns_are_read(rich: TaskConfig) -> None:
    assert Column("hour", "float32") in rich.schema()
    assert Column("tags", "int64", None) in rich.schema()


def test_a_stop_changes_no_bit(rich: TaskConfig, trained: Any) -> None:
    found, row = train(rich, stop=2)
    for name, array in trained[0].items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert row == trained[1]
    assert 0.0 < row["clipped"] <= 1.0


def test_eight_devices_agree(rich: TaskConfig, changed: Changed, trained: Any) -> None:
    found, row = train(changed(rich, train={"devices": 8}))
    for name, array in trained[0].items():
        # bfloat16: where sums differ in their last bit, a rounding may go the other way.
        tolerance = 2.0**-7 if name in ("user", "tags") else 2e-3
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)
        if name in ("user", "tags"):
            assert (found[name] == array).mean() > 0.98
    for name, value in trained[1].items():
        assert row[name] == pytest.approx(value, rel=1e-2), name
    assert {f"gradient_norm/{name}" for name in ("user", "item", "item_q", "tags", "dense")} < set(
        row
    )
