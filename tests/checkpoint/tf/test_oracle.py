"""TensorFlow as the oracle: each side reads what the other wrote, and the files are equal."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monolith_jax.checkpoint.tf import BundleWriter, merge_bundle, open_bundle, write_bundle

DTYPES = [
    *("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16"),
    *("uint32", "uint64", "bool", "complex64", "complex128"),
    *("bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4"),
]


def _dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def _tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = {}
    for name in DTYPES:
        for shape in ((), (0,), (3,), (2, 0, 4), (5, 7)):
            values = rng.integers(0, 7, shape)
            out[f"{name}/{'x'.join(map(str, shape))}"] = np.asarray(values).astype(_dtype(name))
    out["strings"] = np.array([[b"", b"a\0b"], [b"x" * 300, "é".encode()]], object)
    out["string"] = np.array(b"graph", object)
    out["no_strings"] = np.empty((0, 2), object)
    return out


def _save(tf: Any, prefix: Path, tensors: dict[str, np.ndarray]) -> None:
    # the op keeps the order it is given; a Saver gives it the names in order
    tensors = {name: tensors[name] for name in sorted(tensors, key=str.encode)}
    constants = [
        tf.constant(v.tolist(), tf.string, v.shape) if v.dtype == object else tf.constant(v)
        for v in tensors.values()
    ]
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=constants,
    )


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype == object:
        return a.shape == b.shape and a.tolist() == b.tolist()
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_dtype_and_shape_is_read_and_written_as_by_tensorflow(tf, tmp_path):
    tensors = _tensors()
    (tmp_path / "tf").mkdir()
    _save(tf, tmp_path / "tf" / "m", tensors)
    with open_bundle(tmp_path / "tf" / "m") as bundle:
        found = bundle.read_many()
        assert set(found) == set(tensors)
        for name, value in tensors.items():
            assert _equal(found[name], value), name
            assert bundle.entries[name].shape == value.shape
            assert bundle.entries[name].dtype == value.dtype
    write_bundle(tmp_path / "ours" / "m", tensors)
    assert _files(tmp_path / "ours") == _files(tmp_path / "tf")


def test_an_index_of_many_blocks_is_equal(tf, tmp_path):
    rng = np.random.default_rng(1)
    tensors = {f"layer_{i}/{'k' * rng.integers(200)}": np.full(3, i, np.int32) for i in range(6000)}
    (tmp_path / "tf").mkdir()
    _save(tf, tmp_path / "tf" / "m", tensors)
    write_bundle(tmp_path / "ours" / "m", tensors)
    assert len(_files(tmp_path / "ours")["m.index"]) > 2 * 262144
    assert _files(tmp_path / "ours") == _files(tmp_path / "tf")
    found = open_bundle(tmp_path / "tf" / "m").read_many()
    assert all(np.array_equal(found[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("axis", [0, 1])
def test_a_saver_with_partitioned_variables_and_slots(tf, tmp_path, axis):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        with v1.variable_scope("net", partitioner=v1.fixed_size_partitioner(3, axis=axis)):
            table = v1.get_variable("table", [10, 7], initializer=v1.random_normal_initializer())
        step = v1.train.get_or_create_global_step()
        loss = tf.reduce_sum(tf.square(tf.convert_to_tensor(table)))
        train = v1.train.AdagradOptimizer(0.1).minimize(loss, global_step=step)
        saver = v1.train.Saver()
        session.run(v1.global_variables_initializer())
        session.run(train)
        prefix = saver.save(session, str(tmp_path / "tf" / "model.ckpt"), global_step=step)
        values = session.run(tf.convert_to_tensor(table))
        with open_bundle(prefix) as bundle:
            assert list(bundle.entries) == ["global_step", "net/table", "net/table/Adagrad"]
            assert len(bundle.entries["net/table"].partitions) == 3
            assert np.array_equal(bundle.read("net/table"), values)
            part = bundle.read_slice("net/table", np.s_[2:9:2, -2])
            assert np.array_equal(part, values[2:9:2, -2])
            assert bundle.read("global_step") == 1
            boxes = bundle.entries["net/table"].partitions
            slots = bundle.read("net/table/Adagrad")

        ours = tmp_path / "ours" / "model.ckpt-1"
        with BundleWriter(ours) as writer:
            writer.add("global_step", np.int64(1))
            for name, value in (("net/table", values), ("net/table/Adagrad", slots)):
                for box in boxes:
                    index = tuple(slice(*span) for span in box)
                    writer.add_slice(name, value.shape, index, value[index])
        theirs = _files(tmp_path / "tf")
        assert _files(ours.parent)["model.ckpt-1.index"] == theirs["model.ckpt-1.index"]
        session.run(v1.global_variables_initializer())
        saver.restore(session, str(ours))
        assert np.array_equal(session.run(tf.convert_to_tensor(table)), values)


def test_shards_that_several_writers_wrote(tf, tmp_path):
    prefix, value = tmp_path / "m", np.arange(40, dtype=np.float32).reshape(8, 5)
    for shard in range(4):
        with BundleWriter(prefix, shard=shard, shards=4) as writer:
            rows = np.s_[2 * shard : 2 * shard + 2, :]
            writer.add_slice("table", (8, 5), rows, value[rows])
            writer.add(f"dense_{shard}", np.float64(shard))
    assert not (tmp_path / "m.index").exists()
    merge_bundle(prefix, 4)
    assert len(list(tmp_path.iterdir())) == 5
    reader = tf.train.load_checkpoint(str(prefix))
    assert np.array_equal(reader.get_tensor("table"), value)
    assert reader.get_tensor("dense_3") == 3
    assert np.array_equal(open_bundle(prefix).read("table"), value)


def test_a_tf2_checkpoint_both_ways(tf, tmp_path):
    variable = tf.Variable([1.0, 2.0])
    checkpoint = tf.train.Checkpoint(net=variable, step=tf.Variable(3, dtype=tf.int64))
    prefix = checkpoint.save(str(tmp_path / "tf" / "ckpt"))
    with open_bundle(prefix) as bundle:
        tensors = bundle.read_many()
    key = "net/.ATTRIBUTES/VARIABLE_VALUE"
    assert tensors[key].tolist() == [1.0, 2.0]
    # the object graph travels as the string that it is; with it, restore finds its objects
    tensors[key] = np.array([5.0, 6.0], np.float32)
    write_bundle(tmp_path / "ours", tensors)
    checkpoint.restore(str(tmp_path / "ours")).assert_consumed()
    assert variable.numpy().tolist() == [5.0, 6.0]


def test_the_variables_of_a_saved_model_both_ways(tf, tmp_path):
    module = tf.Module()
    module.w = tf.Variable([[1.0, 2.0]])
    tf.saved_model.save(module, str(tmp_path / "model"))
    prefix = tmp_path / "model" / "variables" / "variables"
    with open_bundle(prefix) as bundle:
        tensors = bundle.read_many()
    tensors["w/.ATTRIBUTES/VARIABLE_VALUE"] = np.array([[7.0, 8.0]], np.float32)
    write_bundle(prefix, tensors)
    assert tf.saved_model.load(str(tmp_path / "model")).w.numpy().tolist() == [[7.0, 8.0]]


_ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda name: hnp.arrays(np.uint8, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)).map(
        lambda raw: (raw % 2).astype(_dtype(name))
    )
)
_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tensors=st.dictionaries(_NAMES, _ARRAYS, min_size=1, max_size=8))
def test_any_tensors_both_ways(tf, tmp_path_factory, tensors):
    folder = tmp_path_factory.mktemp("any")
    (folder / "tf").mkdir()
    _save(tf, folder / "tf" / "m", tensors)
    write_bundle(folder / "ours" / "m", tensors)
    assert _files(folder / "ours") == _files(folder / "tf")
    found = open_bundle(folder / "tf" / "m").read_many()
    assert all(_equal(found[name], value) for name, value in tensors.items())
    reader = tf.train.load_checkpoint(str(folder / "ours" / "m"))
    assert reader.get_variable_to_shape_map() == {n: list(v.shape) for n, v in tensors.items()}
