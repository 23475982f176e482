"""The libraries around jax take a map where they take a dict: optax, flax, orbax."""

import subprocess
import sys

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from monolith_jax.nested_map import NestedMap, NestedMapError


class Marked(NestedMap):
    """A subclass that adds nothing."""


@pytest.fixture
def params():
    return NestedMap(
        dense=NestedMap(w=jnp.ones((2, 3)), b=jnp.zeros(3)), out=Marked(k=jnp.arange(3.0))
    )


def assert_trees_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def run_optax(transform, params):
    state = transform.init(params)
    gradients = jax.tree.map(jnp.ones_like, params)
    for _ in range(2):
        updates, state = jax.jit(transform.update)(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    "mask",
    [
        NestedMap(dense=NestedMap(w=True, b=False), out=Marked(k=True)),
        NestedMap(dense=True, out=False),
        lambda p: p.TransformWithKey(lambda path, x: path.endswith("w")),
    ],
    ids=["full", "prefix", "function"],
)
def test_optax_masked(params, mask):
    moved = run_optax(optax.masked(optax.sgd(0.5), mask), params)
    assert type(moved.out) is Marked
    flags = mask(params) if callable(mask) else mask
    plain = flags.ToNestedDict()
    theirs = run_optax(optax.masked(optax.sgd(0.5), plain), params.ToNestedDict())
    assert moved.ToNestedDict().keys() == theirs.keys()
    jax.tree.map(np.testing.assert_array_equal, moved.ToNestedDict(), theirs)


@pytest.mark.parametrize(
    "labels",
    [
        NestedMap(dense=NestedMap(w="fast", b="still"), out=Marked(k="slow")),
        lambda p: p.TransformWithKey(lambda path, _: "slow" if path == "out.k" else "fast"),
    ],
    ids=["labels", "function"],
)
def test_optax_multi_transform(params, labels):
    transforms = {
        "fast": optax.sgd(0.5, momentum=0.0),
        "slow": optax.sgd(0.1),
        "still": optax.set_to_zero(),
    }
    moved = run_optax(optax.multi_transform(transforms, labels), params)
    np.testing.assert_allclose(moved.out.k, params.out.k - 0.2, rtol=1e-6)
    np.testing.assert_allclose(moved.dense.w, jnp.zeros((2, 3)))
    frozen = not callable(labels)
    assert bool((moved.dense.b == params.dense.b).all()) == frozen


def test_flax_state_dict(params):
    state = flax.serialization.to_state_dict(params)
    assert type(state) is type(state["dense"]) is dict
    zeros = jax.tree.map(jnp.zeros_like, params)
    assert_trees_equal(flax.serialization.from_state_dict(zeros, state), params)


def test_flax_bytes(params):
    tree = {"params": params, "l": [NestedMap(x=np.int32(3))], "e": NestedMap()}
    zeros = jax.tree.map(np.zeros_like, tree)
    restored = flax.serialization.from_bytes(zeros, flax.serialization.to_bytes(tree))
    assert_trees_equal(restored, tree)


def test_flax_says_what_the_state_lacks(params):
    state = flax.serialization.to_state_dict(params)
    del state["dense"]["w"]
    with pytest.raises(NestedMapError, match=r"'\./dense' lacks \['w'\].* it has \['b'\]"):
        flax.serialization.from_state_dict(params, state)


@pytest.mark.parametrize(
    "order",
    [
        "import flax; from monolith_jax.nested_map import NestedMap",
        "from monolith_jax.nested_map import NestedMap; import flax",
        "from monolith_jax.nested_map import NestedMap; import sys; "
        "assert 'flax' not in sys.modules; import flax.serialization",
        "from monolith_jax.nested_map import NestedMap; import flax, importlib; "
        "importlib.reload(flax.serialization)",
    ],
)
def test_flax_knows_the_class_in_whatever_order_they_are_imported(order):
    code = f"""{order}
import flax.serialization as s
class Late(NestedMap): pass
assert s.to_state_dict(NestedMap(a=Late(b=1))) == {{"a": {{"b": 1}}}}
assert type(s.to_state_dict(Late())) is dict
assert type(s.from_state_dict(NestedMap(a=Late(b=1)), {{"a": {{"b": 2}}}}).a) is Late
import inspect
assert "def to_state_dict" in inspect.getsource(s)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_flax_module_apply():
    module = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(1)])
    x = jnp.ones((2, 3))
    plain = module.init(jax.random.key(0), x)
    variables = NestedMap.FromNestedDict(plain)
    np.testing.assert_array_equal(module.apply(variables, x), module.apply(plain, x))
    gradient = jax.jit(jax.grad(lambda v: module.apply(v, x).sum()))(variables)
    assert gradient.params.layers_0.kernel.shape == (3, 4)
    assert type(gradient.params.layers_0) is NestedMap


def test_flax_module_with_a_map_as_input_and_as_mutable_collection():
    class Counter(nn.Module):
        @nn.compact
        def __call__(self, batch):
            count = self.variable("stats", "count", lambda: jnp.int32(0))
            count.value += 1
            return NestedMap(y=nn.Dense(1)(batch.x))

    batch = NestedMap(x=jnp.ones((2, 3)))
    variables = NestedMap.FromNestedDict(Counter().init(jax.random.key(0), batch))
    result, changed = Counter().apply(variables, batch, mutable=["stats"])
    assert result.y.shape == (2, 1)
    assert changed["stats"]["count"] == 2


@pytest.fixture
def tree(params):
    return NestedMap(params=params, step=jnp.int32(3), l=[NestedMap(x=jnp.ones(2))])


def test_orbax_with_a_target(tree, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "c", tree)
        checkpointer.wait_until_finished()
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
        assert_trees_equal(checkpointer.restore(tmp_path / "c", target), tree)


def test_orbax_without_a_target(tree, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "c", tree)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "c")
    assert type(restored) is dict
    made = NestedMap.FromNestedDict(restored)
    assert made.Keys() == tree.Keys()
    jax.tree.map(np.testing.assert_array_equal, made.ToNestedDict(), tree.ToNestedDict())


def test_orbax_manager_reads_what_a_dict_wrote_and_the_other_way(tree, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    for folder, written, target in (
        ("map", tree, tree.ToNestedDict()),
        ("dict", tree.ToNestedDict(), tree),
    ):
        with ocp.CheckpointManager(tmp_path / folder) as manager:
            manager.save(1, args=ocp.args.StandardSave(written))
            manager.wait_until_finished()
            assert_trees_equal(manager.restore(1, args=ocp.args.StandardRestore(target)), target)
