"""Values per replica: in with a reduction, out stacked, and whether they are still equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from monolith_jax.replicated_variable import ReplicatedVariable, VariableError
from monolith_jax.replicated_variable._placement import is_lossless

VALUE = np.arange(6, dtype=np.float32).reshape(2, 3)
DEVICES = 8


def per_device():
    """One value on each device, each another one."""
    return [jax.device_put(VALUE + i, d) for i, d in enumerate(jax.devices())]


class TestFromReplicas:
    @pytest.mark.parametrize(
        ("reduce", "expected"),
        [("mean", VALUE + 3.5), ("sum", 8 * VALUE + 28), ("first", VALUE)],
    )
    @pytest.mark.parametrize("form", ["list", "numpy", "pmap", "sharded"])
    def test_reduces(self, reduce, expected, form):
        values = {
            "list": per_device,
            "numpy": lambda: np.stack([np.asarray(v) for v in per_device()]),
            "pmap": lambda: jax.pmap(lambda i: VALUE + i)(jnp.arange(8.0)),
            "sharded": lambda: (
                ReplicatedVariable(
                    "s", np.stack([np.asarray(v) for v in per_device()]), sharding=P("replica")
                ).value
            ),
        }[form]()
        variable = ReplicatedVariable.from_replicas("v", values, reduce=reduce)
        np.testing.assert_array_equal(variable, expected)
        assert len(variable.value.devices()) == DEVICES
        variable.check_replicas()

    def test_the_default_is_the_mean(self):
        assert float(ReplicatedVariable.from_replicas("v", [1.0, 2.0])) == 1.5

    def test_means_narrow_floats_in_float32(self):
        values = np.full((2048, 1), 1.0078125, jnp.bfloat16)
        variable = ReplicatedVariable.from_replicas("v", values)
        assert variable.dtype == jnp.bfloat16
        assert float(variable[0]) == 1.0078125

    def test_sum_keeps_the_dtype(self):
        assert ReplicatedVariable.from_replicas("v", [1, 2], reduce="sum").dtype == jnp.int32

    def test_works_under_a_trace(self):
        made = jax.jit(lambda a, b: ReplicatedVariable.from_replicas("v", [a, b]))(1.0, 2.0)
        assert float(made) == 1.5

    def test_takes_a_sharding(self):
        values = np.zeros((3, 8), np.float32)
        variable = ReplicatedVariable.from_replicas("v", values, sharding=P("replica"))
        assert variable.value.addressable_shards[0].data.shape == (1,)

    @pytest.mark.parametrize(
        ("values", "reduce", "message"),
        [
            ([1.0], "maen", "'v': no reduce='maen'; did you mean mean"),
            ([1, 2], "mean", "mean of int32 replicas is no int32.*'first' or 'sum'"),
            (np.float32(1), "sum", r"leading dimension of at least 1, not shape \(\)"),
            (np.zeros((0, 2)), "sum", r"not shape \(0, 2\)"),
            ([1.0, 2.0], "equal", r"replicas \[1\] differ from replica 0 \(2.0 and 1.0\)"),
        ],
    )
    def test_refuses(self, values, reduce, message):
        with pytest.raises(VariableError, match=message):
            ReplicatedVariable.from_replicas("v", values, reduce=reduce)


class TestStacked:
    @pytest.mark.parametrize("spec", [P(), P("replica")])
    def test_goes_out_one_copy_per_device(self, spec):
        value = np.arange(8, dtype=np.float32)
        stacked = ReplicatedVariable("v", value, sharding=spec).stacked()
        assert stacked.shape == (8, 8)
        assert [s.data.shape for s in stacked.addressable_shards] == [(1, 8)] * 8
        assert {s.device for s in stacked.addressable_shards} == set(jax.devices())
        np.testing.assert_array_equal(stacked, [value] * 8)

    def test_a_pmap_training_loop_keeps_its_form(self):
        variable = ReplicatedVariable("w", VALUE)

        def step(w, x):
            return w - 0.5 * jax.lax.pmean(jax.grad(lambda w: jnp.sum(w * x))(w), "d")

        for _ in range(2):
            new = jax.pmap(step, axis_name="d")(variable.stacked(), jnp.arange(8.0))
            variable.assign_replicas(new)
        np.testing.assert_array_equal(variable, VALUE - 3.5)

    def test_goes_through_pmap_as_a_pytree(self):
        variable = ReplicatedVariable("w", VALUE)
        spread = jax.tree.map(lambda _: variable.stacked(), variable)
        after = jax.pmap(lambda v: v.replace(v + 1.0))(spread)
        np.testing.assert_array_equal(
            ReplicatedVariable.from_replicas("w", after, reduce="equal"), VALUE + 1
        )

    def test_replicas_that_went_apart_are_not_taken_silently(self):
        variable = ReplicatedVariable("w", VALUE)
        apart = jax.pmap(lambda i: VALUE + i)(jnp.arange(8.0))
        with pytest.raises(VariableError, match=r"replicas \[1, 2, 3, 4, 5, 6, 7\] differ"):
            variable.assign_replicas(apart)
        variable.assign_replicas(apart, reduce="mean")
        np.testing.assert_array_equal(variable, VALUE + 3.5)


class TestReplica:
    def test_is_what_the_device_holds(self):
        variable = ReplicatedVariable("v", VALUE)
        for i, device in enumerate(jax.devices()):
            assert variable.replica(i).devices() == {device}
            np.testing.assert_array_equal(variable.replica(i), VALUE)

    def test_is_the_devices_part_if_sharded(self):
        variable = ReplicatedVariable("v", np.arange(8), sharding=P("replica"))
        assert [int(variable.replica(i)[0]) for i in range(8)] == list(range(8))

    @pytest.mark.parametrize("i", [-1, 8])
    def test_names_the_range(self, i):
        with pytest.raises(VariableError, match=f"replicas 0 to 7, no replica {i}"):
            ReplicatedVariable("v", VALUE).replica(i)

    @pytest.mark.parametrize("method", ["replica", "stacked", "check_replicas"])
    def test_is_refused_under_a_trace(self, method):
        arguments = (0,) if method == "replica" else ()
        with pytest.raises(VariableError, match=rf"{method}\(\) under a jax trace"):
            jax.jit(lambda v: getattr(v, method)(*arguments))(ReplicatedVariable("v", VALUE))


class TestCheckReplicas:
    def apart(self, where):
        """A variable whose device `where` holds something else."""
        variable = ReplicatedVariable("v", VALUE)
        parts = [np.array(s.data) for s in variable.value.addressable_shards]
        parts[where].flat[-1] += 0.25
        pieces = [jax.device_put(p, d) for p, d in zip(parts, jax.devices(), strict=True)]
        broken = jax.make_array_from_single_device_arrays(variable.shape, variable.sharding, pieces)
        return jax.tree.map(lambda _: broken, variable)

    def test_passes_when_all_are_equal(self):
        ReplicatedVariable("v", VALUE).check_replicas()
        ReplicatedVariable("v", np.full(3, np.nan)).check_replicas()
        ReplicatedVariable("v", np.arange(8), sharding=P("replica")).check_replicas()

    @pytest.mark.parametrize("where", [0, 3, 7])
    def test_names_the_device_that_differs_and_where(self, where):
        with pytest.raises(
            VariableError, match=rf"devices \[{where}\] differ .*at \[1, 2\]: 5.25 and 5.0"
        ):
            self.apart(where).check_replicas()

    def test_assign_mends_them(self):
        variable = self.apart(5)
        variable.assign(VALUE)
        variable.check_replicas()
        for i in range(DEVICES):
            np.testing.assert_array_equal(variable.replica(i), VALUE)

    def test_parts_are_compared_with_their_own_copies(self):
        mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
        variable = ReplicatedVariable("v", np.arange(8.0), mesh=mesh, sharding=P("b"))
        variable.check_replicas()
        parts = [np.array(s.data) for s in variable.value.addressable_shards]
        parts[6] += 1
        broken = jax.make_array_from_single_device_arrays(
            (8,),
            variable.sharding,
            [jax.device_put(p, d) for p, d in zip(parts, mesh.devices.flat, strict=True)],
        )
        with pytest.raises(VariableError, match=r"devices \[6\] differ"):
            jax.tree.map(lambda _: broken, variable).check_replicas()


NARROW = ["bool", "int8", "uint8", "int16", "uint16", "float16", "bfloat16", "float8_e4m3fn"]
WIDE = ["int32", "uint32", "float32", "complex64"]


@pytest.mark.parametrize("source", NARROW)
@pytest.mark.parametrize("target", NARROW + WIDE)
def test_lossless_means_that_every_number_comes_back(source, target):
    """Exhaustive: all bit patterns of each dtype of 8 or 16 bits."""
    source, target = jnp.dtype(source), jnp.dtype(target)
    bits = np.arange(2 ** (8 * source.itemsize)).astype(f"uint{8 * source.itemsize}")
    every = np.array([False, True]) if source.kind == "b" else bits.view(source)
    with np.errstate(all="ignore"):
        wide = every.astype(np.complex128)
        there = every.astype(target).astype(np.complex128)
        same = (there == wide) | (np.isnan(there) & np.isnan(wide))
    assert is_lossless(source, target) == bool(same.all())
