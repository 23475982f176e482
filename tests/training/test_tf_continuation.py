"""A hundred steps in TensorFlow 1, a hundred here, and the other way round: one trajectory.

The model is the same on both sides: a DeepFM of two tables of vectors (one of them partitioned in
TensorFlow), a table of biases, a dense feature and one hidden layer, all under one optimizer.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monolith_jax.checkpoint.tf import open_bundle
from monolith_jax.checkpoint.tf.names import NameMap, NameRule
from monolith_jax.embedding import FeatureConfig, TableConfig, Uniform
from monolith_jax.input.write import encode_example, write_tfrecord
from monolith_jax.models import DeepFMConfig
from monolith_jax.optimizers import Adagrad, Adam, Momentum, RMSProp, UpdateRule
from monolith_jax.task import InputConfig, TaskConfig, TrainConfig
from monolith_jax.training import train, training_dataset
from monolith_jax.training.tf_checkpoint import export_tf_checkpoint, import_tf_checkpoint

USERS, ITEMS, DIM, HIDDEN, BATCH, STEPS = 60, 40, 4, 8, 32, 100
CASES: dict[str, tuple[UpdateRule, Callable[[Any], Any]]] = {
    "adagrad": (Adagrad(learning_rate=0.05), lambda t: t.AdagradOptimizer(0.05)),
    "momentum": (
        Momentum(learning_rate=0.02, momentum=0.9),
        lambda t: t.MomentumOptimizer(0.02, 0.9),
    ),
    "rmsprop": (
        RMSProp(learning_rate=0.003, momentum=0.5),
        lambda t: t.RMSPropOptimizer(0.003, momentum=0.5),
    ),
    "adam": (Adam(learning_rate=0.003), lambda t: t.AdamOptimizer(0.003)),
}
NAMES = NameMap(
    variables={"params/bias": "logits/bias", "tables/user": "input/user/table"},
    rules=(
        NameRule(ours="params/deep/hidden_0/(.*)", tf=r"dnn/layer_0/\1"),
        NameRule(ours="params/deep/out/(.*)", tf=r"dnn/logits/\1"),
        NameRule(ours="tables/(.*)", tf=r"input/\1/table"),
    ),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day of data, of which four epochs are a hundred steps."""
    folder, random = tmp_path_factory.mktemp("continuation"), np.random.default_rng(0)
    records = [
        encode_example(
            {
                "user": int(random.zipf(1.3) % USERS),
                "item": int(random.integers(ITEMS)),
                "hour": float(random.uniform()),
                "label": float(random.uniform() < 0.8),  # so that the biases go somewhere
            }
        )
        for _ in range(BATCH * STEPS // 4)
    ]
    (folder / "20240101").mkdir()
    write_tfrecord(folder / "20240101" / "part-0", records)
    return folder


def task_of(rule: UpdateRule, root: Path, epochs: int = 4) -> TaskConfig:
    def table(name: str, rows: int, dim: int) -> TableConfig:
        kind = Uniform(scale=0.3)
        return TableConfig(name=name, vocab_size=rows, dim=dim, optimizer=rule, initializer=kind)

    return TaskConfig(
        input=InputConfig(
            root=str(root), start_date="20240101", end_date="20240101", batch_size=BATCH
        ),
        tables=(table("user", USERS, DIM), table("item", ITEMS, DIM), table("bias", USERS, 1)),
        features=(
            FeatureConfig(name="user", table="user"),
            FeatureConfig(name="item", table="item"),
            FeatureConfig(name="bias", column="user", table="bias"),
        ),
        dense=("hour",),
        model=DeepFMConfig(vectors=("user", "item"), biases=("bias",), hidden=(HIDDEN,)),
        optimizer=rule,
        train=TrainConfig(epochs=epochs, devices=1, log_every=50),
    )


class InTensorFlow:
    """The model in a TF1 graph, with its session and Saver."""

    def __init__(self, tf: Any, make: Callable[[Any], Any]) -> None:
        v1, self.tf = tf.compat.v1, tf
        self.graph = tf.Graph()
        with self.graph.as_default():
            v1.set_random_seed(5)
            self.ids = {name: v1.placeholder(tf.int64, [None]) for name in ("user", "item")}
            self.hour, self.label = (v1.placeholder(tf.float32, [None]) for _ in range(2))
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(logits=self.logits(), labels=self.label)
            )
            step = v1.train.get_or_create_global_step()
            self.update = make(v1.train).minimize(loss, global_step=step)
            self.saver, init = v1.train.Saver(), v1.global_variables_initializer()
        self.session = v1.Session(graph=self.graph)
        self.session.run(init)

    def logits(self) -> Any:
        tf, v1 = self.tf, self.tf.compat.v1
        uniform = v1.random_uniform_initializer(-0.3, 0.3)

        def variable(name: str, shape: list[int], parts: int = 1) -> Any:
            split = v1.fixed_size_partitioner(parts) if parts > 1 else None
            return v1.get_variable(
                name, shape, initializer=uniform, partitioner=split, use_resource=True
            )

        def look_up(name: str, rows: int, dim: int, ids: str, parts: int = 1) -> Any:
            table = variable(f"input/{name}/table", [rows, dim], parts)
            return tf.nn.embedding_lookup(table, self.ids[ids])

        user = look_up("user", USERS, DIM, "user", parts=3)
        item = look_up("item", ITEMS, DIM, "item")
        bias = look_up("bias", USERS, 1, "user")
        x = tf.concat([user, item, self.hour[:, None]], axis=1)
        x = tf.matmul(x, variable("dnn/layer_0/kernel", [2 * DIM + 1, HIDDEN]))
        x = tf.nn.relu(x + variable("dnn/layer_0/bias", [HIDDEN]))
        deep = tf.matmul(x, variable("dnn/logits/kernel", [HIDDEN, 1]))
        deep = deep + variable("dnn/logits/bias", [1])
        pairs = tf.reduce_sum(user * item, axis=1)
        return (deep + bias)[:, 0] + pairs + variable("logits/bias", [])

    def train(self, data: Any, steps: int = STEPS) -> None:
        for k in range(steps):
            columns = data.batch(k).columns
            feed = {self.ids[name]: np.asarray(columns[name]) for name in self.ids}
            feed |= {self.hour: columns["hour"], self.label: columns["label"]}
            self.session.run(self.update, feed)

    def save(self, folder: Path, step: int) -> str:
        with self.graph.as_default():  # outside of it TensorFlow is eager, and a Saver another
            return self.saver.save(self.session, str(folder / "model.ckpt"), global_step=step)

    def restore(self, prefix: str) -> None:
        with self.graph.as_default():
            self.saver.restore(self.session, prefix)


def tensors(prefix: str) -> dict[str, np.ndarray]:
    with open_bundle(prefix) as bundle:
        return bundle.read_many()


def assert_follows(got: dict[str, np.ndarray], want: dict[str, np.ndarray], start: Any) -> None:
    """Holds every tensor to the tolerance of tests/embedding/test_tf.py, 3e-6 of its scale."""
    assert got.keys() == want.keys()
    for name, theirs in want.items():
        scale = np.abs(theirs).max()
        error = np.abs(got[name] - theirs).max()
        assert error <= 3e-6 * scale, f"{name}: {error / scale:.1e}"
        if not name.startswith("beta"):
            assert np.abs(theirs - start[name]).max() > 1e-4 * scale, f"{name} did not move"


@pytest.mark.parametrize("case", CASES)
def test_what_tensorflow_began_goes_on_here(case: str, tf: Any, root: Path, tmp_path: Path) -> None:
    rule, make = CASES[case]
    task = task_of(rule, root)
    data, model_dir = training_dataset(task), str(tmp_path / "run")
    theirs = InTensorFlow(tf, make)
    theirs.train(data)
    start = theirs.save(tmp_path, STEPS)
    theirs.train(data)
    end = theirs.save(tmp_path, 2 * STEPS)

    done = import_tf_checkpoint(task, start, model_dir, names=NAMES)
    assert (done.step, len(done.report.left)) == (STEPS, 0)
    same = export_tf_checkpoint(task, model_dir, tmp_path / "same", names=NAMES)
    for name, value in tensors(start).items():
        np.testing.assert_array_equal(tensors(same.prefix)[name], value, err_msg=name)

    train(task, model_dir, show=False)
    here = export_tf_checkpoint(task, model_dir, tmp_path / "here", names=NAMES)
    assert here.step == 2 * STEPS
    assert_follows(tensors(here.prefix), tensors(end), tensors(start))


@pytest.mark.parametrize("case", CASES)
def test_what_was_begun_here_goes_on_in_tensorflow(
    case: str, tf: Any, root: Path, tmp_path: Path
) -> None:
    rule, make = CASES[case]
    task, model_dir = task_of(rule, root), str(tmp_path / "run")
    train(task, model_dir, show=False)
    start = export_tf_checkpoint(task, model_dir, tmp_path / "model.ckpt", names=NAMES)
    assert start.step == STEPS
    theirs = InTensorFlow(tf, make)
    theirs.restore(start.prefix)
    theirs.train(training_dataset(task))
    end = theirs.save(tmp_path / "theirs", 2 * STEPS)

    longer = dataclasses.replace(task, train=dataclasses.replace(task.train, epochs=8))
    train(longer, model_dir, show=False)
    here = export_tf_checkpoint(longer, model_dir, tmp_path / "here", names=NAMES)
    assert_follows(tensors(here.prefix), tensors(end), tensors(start.prefix))
