"""What the import and export of TensorFlow's checkpoints do beyond the plain case."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from monolith_jax.checkpoint.native import Checkpoints
from monolith_jax.checkpoint.tf import open_bundle, write_bundle
from monolith_jax.checkpoint.tf.names import MovingAverages, NameMap, OptimizerNames
from monolith_jax.errors import CheckpointError, ConfigError, DivergedError
from monolith_jax.models import MatrixFactorizationConfig
from monolith_jax.optimizers import Adam, RowwiseAdagrad
from monolith_jax.task import TaskConfig
from monolith_jax.training.lock import held
from monolith_jax.training.program import Program, devices_for
from monolith_jax.training.tf_checkpoint import export_tf_checkpoint, import_tf_checkpoint
from monolith_jax.training.tf_state import tf_variables


def factorization(task: TaskConfig, *, beta1: float = 0.9, wide: bool = False) -> TaskConfig:
    """Two tables of vectors and two of biases under Adam, and a mean under another Adam."""
    rows = {"user": 5, "item": 4, "user_bias": 5, "item_bias": 4}
    model = MatrixFactorizationConfig()
    features = tuple(
        dataclasses.replace(task.features[0], name=name, table=name, column=name.split("_")[0])
        for name in rows
    )
    rule = RowwiseAdagrad() if wide else Adam(beta1=beta1)
    tables = tuple(
        dataclasses.replace(
            task.tables[0],
            name=name,
            vocab_size=count,
            dim=1 if "bias" in name else 3,
            optimizer=rule,
        )
        for name, count in rows.items()
    )
    return dataclasses.replace(
        task, tables=tables, features=features, dense=(), model=model, optimizer=Adam()
    )


@pytest.fixture
def mf(task: TaskConfig) -> TaskConfig:
    return factorization(task)


def written(task: TaskConfig, prefix: Path, names: NameMap, **more: Any) -> dict[str, np.ndarray]:
    """Writes a checkpoint of random numbers that has all that the task wants."""
    from monolith_jax.checkpoint.tf.names import entries

    random = np.random.default_rng(0)
    tensors: dict[str, Any] = {
        e.tf: random.uniform(0.1, 0.9, e.shape).astype(np.float32)
        for e in entries(tf_variables(Program(task, devices_for(task))), names)
    }
    tensors |= {names.global_step: np.int64(30)} | more
    write_bundle(prefix, tensors)
    return {name: np.asarray(value) for name, value in tensors.items()}


def round_trip(task: TaskConfig, folder: Path, names: NameMap) -> dict[str, np.ndarray]:
    import_tf_checkpoint(task, folder / "model-30", str(folder / "run"), names=names)
    out = export_tf_checkpoint(task, str(folder / "run"), folder / "out", names=names)
    with open_bundle(out.prefix) as bundle:
        return bundle.read_many()


@pytest.mark.parametrize("devices", [1, 8])
def test_every_array_comes_back_on_any_number_of_devices(
    mf: TaskConfig, tmp_path: Path, devices: int, changed: Callable[..., TaskConfig]
) -> None:
    task, names = changed(mf, train={"devices": devices}), NameMap()
    tensors = written(task, tmp_path / "model-30", names)
    back = round_trip(task, tmp_path, names)
    assert back.keys() == tensors.keys()
    for name in tensors:
        np.testing.assert_array_equal(back[name], tensors[name], err_msg=name)


def test_slots_of_one_number_a_row_come_back(task: TaskConfig, tmp_path: Path) -> None:
    task = factorization(task, wide=True)
    tensors = written(task, tmp_path / "model-30", NameMap())
    assert tensors["user/RowwiseAdagrad"].shape == (5, 1)
    back = round_trip(task, tmp_path, NameMap())
    np.testing.assert_array_equal(back["user/RowwiseAdagrad"], tensors["user/RowwiseAdagrad"])


def test_two_optimizers_have_powers_of_their_own(task: TaskConfig, tmp_path: Path) -> None:
    task = factorization(task, beta1=0.8)
    apart = NameMap(optimizers={"tables": OptimizerNames(scalar_index=1)})
    tensors = written(task, tmp_path / "model-30", apart)
    assert tensors["beta1_power"] != tensors["beta1_power_1"]
    back = round_trip(task, tmp_path, apart)
    assert {n: back[n] for n in back if "beta" in n} == {
        n: tensors[n] for n in tensors if "beta" in n
    }
    with pytest.raises(ConfigError, match=r"both are 'beta1_power': give \[optimizers.tables\]"):
        export_tf_checkpoint(task, str(tmp_path / "run"), tmp_path / "one")
    assert not list(tmp_path.glob("one*"))


def test_tables_of_one_stack_cannot_have_two_powers(mf: TaskConfig, tmp_path: Path) -> None:
    names = NameMap(optimizers={"tables/user": OptimizerNames(scope="u")})
    written(mf, tmp_path / "model-30", names)
    with pytest.raises(CheckpointError, match=r"share beta1_power, which is 0\.\d+ under another"):
        import_tf_checkpoint(mf, tmp_path / "model-30", str(tmp_path / "run"), names=names)


def test_averages_of_tensorflow_are_read_and_written(
    tf: Any, mf: TaskConfig, tmp_path: Path
) -> None:
    v1, shapes = tf.compat.v1, {"user": [5, 3], "item": [4, 3], "mean": []}
    shapes |= {"user_bias": [5, 1], "item_bias": [4, 1]}
    with tf.Graph().as_default(), v1.Session() as session:
        step = v1.train.get_or_create_global_step()
        variables = [
            v1.get_variable(n, s, initializer=v1.ones_initializer()) for n, s in shapes.items()
        ]
        loss = tf.add_n([tf.reduce_sum(v * v) for v in variables])
        update = v1.train.AdamOptimizer(0.1).minimize(loss, global_step=step)
        average = tf.train.ExponentialMovingAverage(0.5)
        with tf.control_dependencies([update]):
            both = average.apply(variables)
        session.run(v1.global_variables_initializer())
        for _ in range(3):
            session.run(both)
        saver = v1.train.Saver()
        prefix = saver.save(session, str(tmp_path / "model"), global_step=step)
        plain, averaged = session.run([variables[0], average.average(variables[0])])
        assert np.abs(plain - averaged).max() > 0.01

        names = NameMap(moving_averages=MovingAverages(read=True, write=True))
        done = import_tf_checkpoint(mf, prefix, str(tmp_path / "run"), names=names)
        assert (done.step, done.report.left) == (3, ())
        out = export_tf_checkpoint(mf, str(tmp_path / "run"), tmp_path / "out", names=names)
        saver.restore(session, out.prefix)
        for got in session.run([variables[0], average.average(variables[0])]):
            np.testing.assert_array_equal(got, averaged)

        import_tf_checkpoint(mf, prefix, str(tmp_path / "run2"))
        out = export_tf_checkpoint(mf, str(tmp_path / "run2"), tmp_path / "out2")
        with open_bundle(out.prefix) as bundle:
            np.testing.assert_array_equal(bundle.read("user"), plain)


def test_the_checkpoint_knows_where_its_data_begin(mf: TaskConfig, tmp_path: Path) -> None:
    written(mf, tmp_path / "model-30", NameMap())
    done = import_tf_checkpoint(mf, tmp_path / "model-30", str(tmp_path / "run"))
    assert done.path == str(tmp_path / "run" / "checkpoints" / "30")
    program = Program(mf, devices_for(mf))
    checkpoints = Checkpoints(str(tmp_path / "run" / "checkpoints"), read_only=True)
    restored, run = checkpoints.restore(30, program.abstract_checkpoint())
    assert (run["step"], run["first_step"], run["data"]) == (30, 30, None)
    state = restored["state"]
    counts = [state.step, state.tables["step"], *jax.tree.leaves(state.opt_state)[:1]]
    assert [int(count) for count in counts] == [30, 30, 30]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"user": np.full((5, 3), np.nan, np.float32)}, DivergedError, "not finite"),
        ({"global_step": np.int64(2**31)}, CheckpointError, "step 2147483648 is not within"),
        ({"mean": np.float64(1)}, CheckpointError, "mean has dtype float64, ours float32"),
    ],
)
def test_what_cannot_be_taken_over_is_an_error_and_no_checkpoint(
    mf: TaskConfig, tmp_path: Path, more: Any, error: type[Exception], message: str
) -> None:
    written(mf, tmp_path / "model-30", NameMap(), **more)
    with pytest.raises(error, match=message):
        import_tf_checkpoint(mf, tmp_path / "model-30", str(tmp_path / "run"))
    folder = str(tmp_path / "run" / "checkpoints")
    assert Checkpoints(folder, read_only=True).steps() == []


def test_a_model_dir_in_use_is_left_as_it_is(mf: TaskConfig, tmp_path: Path) -> None:
    written(mf, tmp_path / "model-30", NameMap())
    run = tmp_path / "run"
    with held(str(run)), pytest.raises(CheckpointError, match="is in use by process"):
        import_tf_checkpoint(mf, tmp_path / "model-30", str(run))
    assert [path.name for path in run.iterdir()] == [".lock"]


def test_the_step_is_appended_once_and_old_exports_go_only_on_request(
    mf: TaskConfig, tmp_path: Path
) -> None:
    written(mf, tmp_path / "model-30", NameMap())
    run, out = str(tmp_path / "run"), tmp_path / "out"
    import_tf_checkpoint(mf, tmp_path / "model-30", run)
    for name in ("a", "b", "c-30"):
        export_tf_checkpoint(mf, run, out / name)
    assert sorted(p.stem for p in out.glob("*.index")) == ["a-30", "b-30", "c-30"]
    export_tf_checkpoint(mf, run, out / "d", max_to_keep=2)
    assert sorted(p.stem for p in out.glob("*.index")) == ["c-30", "d-30"]
