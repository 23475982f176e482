"""A small model on small dated data, for every test that trains."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from monolith_jax.embedding import FeatureConfig, TableConfig
from monolith_jax.input.write import encode_example, write_tfrecord
from monolith_jax.models import DeepFMConfig
from monolith_jax.task import InputConfig, LabelConfig, TaskConfig, TrainConfig

USERS, ITEMS, TAGS = 50, 40, 12
DAYS = ("20240101", "20240102", "20240103")


def write_days(root: Path, examples_per_day: int = 100) -> None:
    """Writes three days; whether a user likes an item depends on both."""
    random = np.random.default_rng(0)
    taste, style = random.normal(size=(USERS, 2)), random.normal(size=(ITEMS, 2))
    for day in DAYS:
        records = []
        for _ in range(examples_per_day):
            user, item = int(random.integers(USERS)), int(random.integers(ITEMS))
            records.append(
                encode_example(
                    {
                        "user": user,
                        "item": item,
                        "tags": random.integers(TAGS, size=random.integers(4)),
                        "label": float(taste[user] @ style[item] > 0),
                        "hour": float(random.uniform()),
                    }
                )
            )
        folder = root / day / "00"
        folder.mkdir(parents=True)
        write_tfrecord(folder / "part-00000", records)


def small_task(root: Path) -> TaskConfig:
    """Two days of training, one of evaluation; 7 steps an epoch, the last one padded."""
    tables = [("user", USERS, 8), ("item", ITEMS, 8), ("tags", TAGS, 8), ("user_bias", USERS, 1)]
    return TaskConfig(
        input=InputConfig(
            root=str(root),
            start_date=DAYS[0],
            end_date=DAYS[1],
            eval_start_date=DAYS[2],
            eval_end_date=DAYS[2],
            batch_size=32,
            seed=1,
            shuffle_window=150,
        ),
        label=LabelConfig(column="label"),
        tables=tuple(TableConfig(name=n, vocab_size=v, dim=d) for n, v, d in tables),
        features=(
            FeatureConfig(name="user", table="user"),
            FeatureConfig(name="item", table="item"),
            FeatureConfig(name="tags", table="tags", combiner="mean", max_length=3),
            FeatureConfig(name="user_bias", column="user", table="user_bias"),
        ),
        dense=("hour",),
        model=DeepFMConfig(
            vectors=("user", "item", "tags"), biases=("user_bias",), hidden=(8,), dropout=0.1
        ),
        train=TrainConfig(epochs=3, log_every=4, checkpoint_every=5, devices=1),
    )


MODEL = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {here!r})
from conftest import small_task
from monolith_jax import storage
from monolith_jax.registry import RegisterSingleTaskModel
from monolith_jax.task import SingleTaskModelParams

if {impatient!r}:
    storage.set_retry_policy(storage.RetryPolicy(12, first_s=0.002, longest_s=0.01, stall_s=0.7))

@RegisterSingleTaskModel
class Small(SingleTaskModelParams):
    "The small model of the tests."

    def task(self):
        task = small_task(Path({root!r}))
        tables = (replace(task.tables[0], vocab_size={users!r}), *task.tables[1:])
        return replace(task, tables=tables, train=replace(task.train, **{train!r}))
"""


def write_model(
    folder: Path,
    module: str,
    root: str | Path,
    *,
    users: int = USERS,
    impatient: bool = False,
    **train: object,
) -> None:
    """Writes a module that registers the small model, for `monolith-jax` in another process.

    Args:
      folder: where to; the process needs it in PYTHONPATH, and `--module` with the module's name.
      module: its name; the model's key is `<module>.Small`.
      root: the data.
      users: rows of the table of users.
      impatient: whether requests that fail are sent again at once.
      **train: fields of `TrainConfig` to set.
    """
    text = MODEL.format(
        here=str(Path(__file__).parent),
        root=str(root),
        users=users,
        impatient=impatient,
        train=train,
    )
    (folder / f"{module}.py").write_text(text)


@pytest.fixture(scope="session")
def model_file() -> Callable[..., None]:
    """`write_model`, for the tests of other processes."""
    return write_model


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskConfig:
    """The small task on data written once."""
    root = tmp_path_factory.mktemp("data")
    write_days(root)
    return small_task(root)


@pytest.fixture(scope="session")
def changed() -> Callable[..., TaskConfig]:
    """`changed(task, input=dict(...), train=dict(...), ...)`: the task with nested fields set."""

    def change(task: TaskConfig, **groups: object) -> TaskConfig:
        values = {
            name: dataclasses.replace(getattr(task, name), **value)
            if isinstance(value, dict)
            else value
            for name, value in groups.items()
        }
        return dataclasses.replace(task, **values)

    return change


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps compiled programs for the session: most tests run the same few."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
