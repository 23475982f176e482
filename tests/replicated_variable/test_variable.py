"""ReplicatedVariable: what it is, how it is read and written, and what it refuses."""

import copy
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.errors import UserError
from monolith_jax.replicated_variable import GraphEraError, ReplicatedVariable, VariableError

VALUE = np.arange(8, dtype=np.float32)


@pytest.fixture
def v():
    return ReplicatedVariable("v", VALUE)


def all_replicas(variable):
    return [np.asarray(shard.data) for shard in variable.value.addressable_shards]


class TestConstructor:
    def test_takes_monoliths_list_of_replicas(self):
        per_core = [jax.device_put(VALUE, device) for device in jax.devices()]
        variable = ReplicatedVariable("v", per_core)
        assert variable.shape == (8,)
        np.testing.assert_array_equal(all_replicas(variable), [VALUE] * 8)

    def test_takes_variables_by_keyword_as_the_original(self):
        assert ReplicatedVariable(name="v", variables=[1.0]).shape == ()

    def test_takes_tensorflow_variables(self, tf):
        variable = ReplicatedVariable("v", [tf.Variable(VALUE), tf.Variable(VALUE)])
        np.testing.assert_array_equal(variable, VALUE)

    def test_takes_a_list_of_its_own_kind(self, v):
        np.testing.assert_array_equal(ReplicatedVariable("w", [v, v]), VALUE)

    def test_replicas_that_differ_are_named(self):
        with pytest.raises(VariableError, match=r"replicas \[1\] differ from replica 0 \(at \[2\]"):
            ReplicatedVariable("v", [np.zeros(4), np.array([0, 0, 5.0, 0])])

    def test_not_a_number_equals_itself(self):
        assert np.isnan(float(ReplicatedVariable("v", [np.nan, np.nan])))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([], "list of replicas is empty"),
            ([np.zeros(2), np.zeros(3)], r"differ in shape or dtype: float\d+\[2\], float\d+\[3\]"),
            ("text", "holds numbers and cannot take <U4"),
            (jax.random.key(0), "random.key_data"),
        ],
    )
    def test_refuses(self, value, message):
        with pytest.raises(VariableError, match=message):
            ReplicatedVariable("v", value)

    @pytest.mark.parametrize("name", ["", None, 3])
    def test_refuses_a_name_that_is_none(self, name):
        with pytest.raises(VariableError, match="non-empty string"):
            ReplicatedVariable(name, 1.0)

    def test_numpys_float64_is_float32_and_dtype_can_be_said(self):
        assert ReplicatedVariable("v", np.zeros(2)).dtype == jnp.float32
        assert ReplicatedVariable("v", np.zeros(2), dtype=jnp.bfloat16).dtype == jnp.bfloat16
        with pytest.raises(VariableError, match="would lose part"):
            ReplicatedVariable("v", np.array([0.1], np.float32), dtype=jnp.bfloat16)

    def test_errors_are_user_errors(self):
        assert issubclass(VariableError, UserError)
        assert issubclass(VariableError, ValueError)


class TestSharding:
    def test_is_replicated_on_all_devices_by_default(self, v):
        assert v.sharding.is_fully_replicated
        assert v.value.sharding == v.sharding
        assert len(v.value.devices()) == 8

    def test_takes_the_mesh_of_its_value(self):
        mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
        value = jax.device_put(VALUE, NamedSharding(mesh, P("a")))
        assert ReplicatedVariable("v", value).sharding == NamedSharding(mesh, P())

    @pytest.mark.parametrize(
        ("spec", "part"),
        [(P(), (8, 4)), (P("a"), (4, 4)), (P(None, "b"), (8, 1)), (P(("a", "b")), (1, 4))],
    )
    def test_any_partition_spec_is_kept_by_every_write(self, spec, part):
        mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
        value = np.arange(32, dtype=np.float32).reshape(8, 4)
        variable = ReplicatedVariable("v", value, mesh=mesh, sharding=spec)
        variable.assign_add(value)
        variable.assign(variable * 2.0)
        variable = jax.jit(lambda v: v.replace(v + 1.0))(variable)
        assert variable.value.sharding.is_equivalent_to(NamedSharding(mesh, spec), 2)
        assert {shard.data.shape for shard in variable.value.addressable_shards} == {part}
        np.testing.assert_array_equal(variable, 4 * value + 1)
        variable.check_replicas()

    def test_works_on_an_explicit_mesh(self):
        mesh = jax.make_mesh((8,), ("a",), axis_types=(jax.sharding.AxisType.Explicit,))
        variable = ReplicatedVariable("v", VALUE, mesh=mesh, sharding=P("a"))
        variable.assign_add(VALUE)
        after = jax.jit(lambda v: v.replace(v + 1.0))(variable)
        assert after.value.sharding == NamedSharding(mesh, P("a"))
        np.testing.assert_array_equal(after, 2 * VALUE + 1)

    def test_a_shape_that_cannot_be_cut_is_named(self):
        with pytest.raises(VariableError, match=r"'v' of shape \(3,\) cannot be laid out as P.*8"):
            ReplicatedVariable("v", np.zeros(3), sharding=P("replica"))

    def test_refuses_two_meshes_and_things_that_are_none(self, v):
        other = Mesh(np.array(jax.devices()[:1]), ("x",))
        with pytest.raises(VariableError, match="not both"):
            ReplicatedVariable("v", VALUE, sharding=v.sharding, mesh=other)
        with pytest.raises(VariableError, match="not str"):
            ReplicatedVariable("v", VALUE, sharding="replica")
        with pytest.raises(VariableError, match="not int"):
            ReplicatedVariable("v", VALUE, mesh=8)


class TestMonolithsMembers:
    def test_properties(self, v):
        assert (v.name, v.dtype, v.shape) == ("v", jnp.float32, (8,))
        assert v.get_shape() == (8,)
        assert v.get_shape().as_list() == [8]
        assert v.get_shape().ndims == 1
        assert v.constraint is None
        assert v.handle is v.value
        assert v.get() is v

    def test_initializer_is_that_of_an_eager_tf_variable(self, v, tf):
        assert v.initializer is tf.Variable(1.0).initializer

    def test_private_members_that_tensorflow_looks_for(self, v):
        assert v._shared_name == "v"
        assert v._unique_id.startswith("v_")
        assert v._unique_id != ReplicatedVariable("v", VALUE)._unique_id
        assert v._in_graph_mode is False
        assert v._should_act_as_resource_variable() is None
        assert v._dense_var_to_tensor(dtype=jnp.int32) is NotImplemented
        assert v._dense_var_to_tensor(as_ref=True) is v.handle
        np.testing.assert_array_equal(v._dense_var_to_tensor(dtype="float32"), VALUE)

    @pytest.mark.parametrize(
        ("member", "instead"),
        [("graph", "make_jaxpr"), ("op", "read_value"), ("to_proto", "orbax")],
    )
    def test_refused_members_say_what_to_use(self, v, member, instead):
        with pytest.raises(GraphEraError, match=f"'v' has no '{member}'.*{instead}"):
            getattr(v, member)()
        assert isinstance(GraphEraError(), AttributeError)

    def test_hasattr_of_a_refused_property_is_false(self, v):
        assert not hasattr(v, "graph")
        assert not hasattr(v, "op")


class TestAssign:
    def test_writes_every_replica(self, v):
        assert v.assign(VALUE + 1) is None
        np.testing.assert_array_equal(all_replicas(v), [VALUE + 1] * 8)

    def test_add_and_sub_return_the_new_value_by_default(self, v):
        np.testing.assert_array_equal(v.assign_add(VALUE), 2 * VALUE)
        np.testing.assert_array_equal(v.assign_sub(VALUE), VALUE)
        assert v.assign_add(VALUE, read_value=False) is None
        assert v.assign_sub(VALUE, read_value=False) is None
        np.testing.assert_array_equal(all_replicas(v), [VALUE] * 8)

    def test_takes_the_originals_arguments_in_its_order(self, v):
        np.testing.assert_array_equal(v.assign(VALUE + 1, True, "op", True), VALUE + 1)
        np.testing.assert_array_equal(v.assign_add(VALUE, None, "op", True), 2 * VALUE + 1)
        assert v.assign_sub(VALUE, use_locking=False, name="op", read_value=False) is None

    @pytest.mark.parametrize("method", ["assign", "assign_add", "assign_sub", "replace"])
    def test_wrong_shape(self, v, method):
        with pytest.raises(VariableError, match=r"'v' has shape \(8,\) and cannot .* \(4,\)"):
            getattr(v, method)(np.zeros(4))
        with pytest.raises(VariableError, match="nothing is broadcast"):
            getattr(v, method)(1.0)

    @pytest.mark.parametrize("method", ["assign", "assign_add", "assign_sub", "replace"])
    @pytest.mark.parametrize(
        ("dtype", "value"),
        [
            ("int32", 1.5),
            ("int32", 2**31),
            ("int8", np.int64(300)),
            ("int32", jnp.float32(1)),
            ("bfloat16", jnp.float32(1)),
            ("bfloat16", np.float32(0.1)),
            ("float32", jnp.int32(1)),
            ("float32", np.int64(2**24 + 1)),
            ("float32", 1j),
            ("bool", 1),
            ("int8", jnp.asarray(300)),
        ],
    )
    def test_lossy_dtype(self, method, dtype, value):
        variable = ReplicatedVariable("v", jnp.zeros((), dtype))
        with pytest.raises(VariableError, match=f"'v' has dtype {dtype} and would lose.*astype"):
            getattr(variable, method)(value)
        assert not np.asarray(variable).any()

    @pytest.mark.parametrize(
        ("dtype", "value"),
        [
            ("bfloat16", 0.1),
            ("bfloat16", np.float32(0.5)),
            ("float32", 3),
            ("float32", np.int64(2**24)),
            ("float32", jnp.bfloat16(1.5)),
            ("float32", jnp.int16(7)),
            ("float32", True),
            ("complex64", 2.0),
            ("int8", jnp.asarray(100)),
        ],
    )
    def test_what_nothing_is_lost_of_is_cast(self, dtype, value):
        variable = ReplicatedVariable("v", jnp.zeros((), dtype))
        variable.assign(value)
        assert variable.dtype == dtype
        assert complex(variable) == complex(jnp.asarray(value).astype(dtype))

    def test_a_failed_assign_changes_nothing(self, v):
        with pytest.raises(VariableError):
            v.assign(np.zeros(9))
        np.testing.assert_array_equal(v, VALUE)

    @pytest.mark.parametrize("method", ["assign", "assign_add", "assign_sub"])
    @pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap, jax.make_jaxpr])
    def test_under_a_trace_points_to_replace(self, v, method, transform):
        def outside(x):
            getattr(v, method)(VALUE)
            return x

        x = jnp.ones(2) if transform is jax.vmap else 1.0
        with pytest.raises(VariableError, match=rf"'v': {method}\(\) under a jax trace.*replace"):
            transform(outside)(x)
        np.testing.assert_array_equal(v, VALUE)

    def test_a_traced_variable_refuses_too(self, v):
        with pytest.raises(VariableError, match="replace"):
            jax.jit(lambda v: v.assign(VALUE))(v)


class TestArray:
    BINARY = "add sub mul truediv floordiv mod pow eq ne lt le gt ge matmul".split()  # noqa: SIM905

    @pytest.mark.parametrize("name", BINARY)
    def test_operators_on_both_sides(self, name):
        a, b = np.float32([1, 2, 3]), np.float32([3, 2, 4])
        function = getattr(operator, name)
        va, vb = ReplicatedVariable("a", a), ReplicatedVariable("b", b)
        for left, right in [(va, vb), (va, b), (a, vb), (va, jnp.asarray(b)), (jnp.asarray(a), vb)]:
            result = function(left, right)
            assert isinstance(result, jax.Array)
            np.testing.assert_allclose(result, function(a, b), rtol=1e-6)

    @pytest.mark.parametrize("name", ["and_", "or_", "xor", "lshift", "rshift"])
    def test_bit_operators(self, name):
        a, b = np.int32([1, 6, 3]), np.int32([3, 2, 4])
        function = getattr(operator, name)
        np.testing.assert_array_equal(function(ReplicatedVariable("a", a), b), function(a, b))
        np.testing.assert_array_equal(function(a, ReplicatedVariable("b", b)), function(a, b))

    def test_unary_operators_numbers_and_indexing(self, v):
        np.testing.assert_array_equal(-v, -VALUE)
        np.testing.assert_array_equal(+v, VALUE)
        np.testing.assert_array_equal(abs(-1.0 * v), VALUE)
        np.testing.assert_array_equal(~ReplicatedVariable("b", np.array([True])), [False])
        np.testing.assert_array_equal(v[2:4], VALUE[2:4])
        np.testing.assert_array_equal(v[ReplicatedVariable("i", 3)], 3)
        np.testing.assert_array_equal(divmod(v, 2.0)[1], VALUE % 2)
        np.testing.assert_array_equal(divmod(2.0, v + 1.0)[0], 2 // (VALUE + 1))
        np.testing.assert_array_equal(round(v / 3.0, 1), np.round(jnp.asarray(VALUE) / 3, 1))
        assert [float(x) for x in v] == list(VALUE)
        assert (len(v), v.ndim, v.size) == (8, 1, 8)
        two = ReplicatedVariable("two", 2)
        assert (int(two), float(two), complex(two), bool(two), range(9)[two]) == (2, 2, 2, True, 2)

    @pytest.mark.parametrize(
        "function",
        [
            jnp.sin,
            jnp.sum,
            jnp.cumsum,
            lambda v: jnp.concatenate([v, v]),
            lambda v: jnp.stack([v, v]),
            lambda v: jnp.where(jnp.greater(v, 2), v, 0.0),
            lambda v: jnp.einsum("i,i->", v, v),
            lambda v: jnp.dot(v, v),
            jax.nn.relu,
            jnp.asarray,
            jnp.array,
        ],
    )
    def test_any_jnp_expression(self, v, function):
        np.testing.assert_array_equal(function(v), function(jnp.asarray(VALUE)))
        np.testing.assert_array_equal(jax.jit(function)(v), jax.jit(function)(jnp.asarray(VALUE)))

    def test_compares_elementwise_and_is_not_hashable(self, v):
        assert (v == v).shape == (8,)
        with pytest.raises(TypeError, match="unhashable"):
            hash(v)

    def test_numpy_gets_a_copy(self, v):
        array = np.asarray(v)
        array += 1
        np.testing.assert_array_equal(v, VALUE)
        assert np.asarray(v, dtype=np.float64).dtype == np.float64
        with pytest.raises(ValueError, match="without a copy"):
            np.array(v, copy=False)

    def test_repr_is_readable_also_with_odd_leaves(self, v):
        assert repr(v) == "ReplicatedVariable('v', float32[8], P() on 8 devices)"
        assert "'v', str[]" in repr(jax.tree.map(lambda _: "leaf", v))


class TestPytree:
    def test_has_one_leaf(self, v):
        leaves, treedef = jax.tree.flatten(v)
        assert len(leaves) == 1
        assert leaves[0] is v.value
        assert jax.tree.unflatten(treedef, leaves).name == "v"
        ((path, _),) = jax.tree_util.tree_flatten_with_path({"a": v})[0]
        assert jax.tree_util.keystr(path) == "['a'].value"

    def test_jit_and_grad(self, v):
        grad = jax.jit(jax.grad(lambda v: jnp.sum(v**2)))(v)
        assert isinstance(grad, ReplicatedVariable)
        np.testing.assert_array_equal(grad, 2 * VALUE)
        after = jax.tree.map(lambda a, g: a - 0.5 * g, v, grad)
        np.testing.assert_array_equal(after, np.zeros(8))

    def test_replace_under_every_transformation(self, v):
        def double(v):
            return v.replace(v * 2.0)

        np.testing.assert_array_equal(double(v), 2 * VALUE)
        np.testing.assert_array_equal(jax.jit(double)(v), 2 * VALUE)
        np.testing.assert_array_equal(jax.vmap(double)(v), 2 * VALUE)
        np.testing.assert_array_equal(jax.checkpoint(double)(v), 2 * VALUE)
        np.testing.assert_array_equal(
            jax.lax.scan(lambda v, _: (double(v), None), v, length=3)[0], 8 * VALUE
        )
        np.testing.assert_array_equal(jax.lax.while_loop(lambda v: v[1] < 3, double, v), 4 * VALUE)
        spread = jax.shard_map(
            double, mesh=v.sharding.mesh, in_specs=P("replica"), out_specs=P("replica")
        )
        np.testing.assert_array_equal(spread(v), 2 * VALUE)
        np.testing.assert_array_equal(jax.jit(spread)(v), 2 * VALUE)
        assert jax.jit(double)(v).value.sharding == v.sharding
        with pytest.raises(VariableError, match="would lose"):
            jax.jit(lambda v: v.replace(v.value.astype(jnp.complex64)))(v)

    def test_is_made_inside_a_trace(self):
        made = jax.jit(lambda x: ReplicatedVariable("made", x + 1.0))(VALUE)
        assert len(made.value.devices()) == 8
        np.testing.assert_array_equal(made, VALUE + 1)
        shapes = jax.eval_shape(lambda: ReplicatedVariable("made", jnp.zeros((2, 3))))
        assert (shapes.shape, shapes.dtype) == ((2, 3), jnp.float32)

    def test_optax_takes_it_as_params(self, v):
        import optax

        optimizer = optax.sgd(0.1, momentum=0.9)
        state = optimizer.init(v)
        updates, _ = optimizer.update(jax.grad(lambda v: jnp.sum(v))(v), state, v)
        after = optax.apply_updates(v, updates)
        assert isinstance(after, ReplicatedVariable)
        np.testing.assert_allclose(after, VALUE - 0.1, rtol=1e-5)

    def test_subclasses_are_pytrees_of_their_own_class(self):
        class Counter(ReplicatedVariable):
            pass

        assert type(jax.jit(lambda c: c.replace(c + 1))(Counter("c", 1))) is Counter

    def test_copies(self, v):
        shallow, deep = copy.copy(v), copy.deepcopy(v)
        assert shallow.value is v.value
        assert deep.value is not v.value
        deep.assign(VALUE + 1)
        shallow.assign(VALUE + 2)
        np.testing.assert_array_equal(v, VALUE)


class TestCheckpoint:
    def test_is_one_entry_and_comes_back_onto_its_sharding(self, tmp_path):
        import orbax.checkpoint as ocp

        split = ReplicatedVariable("split", VALUE, sharding=P("replica"))
        tree = {"step": ReplicatedVariable("step", 7), "split": split}
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "c", tree)
            checkpointer.wait_until_finished()
            raw = checkpointer.restore(tmp_path / "c")
            target = {
                "step": ReplicatedVariable("step", 0),
                "split": ReplicatedVariable("split", np.zeros(8), sharding=P("replica")),
            }
            back = checkpointer.restore(tmp_path / "c", target)
        assert len(jax.tree.leaves(raw)) == 2
        np.testing.assert_array_equal(raw["split"]["value"], VALUE)
        assert int(back["step"]) == 7
        np.testing.assert_array_equal(back["split"], VALUE)
        assert back["split"].value.sharding.is_equivalent_to(split.sharding, 1)
        assert back["split"].name == "split"
