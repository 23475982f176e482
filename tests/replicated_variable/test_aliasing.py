"""A variable shares no memory with what it was given or what it returned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from monolith_jax.replicated_variable import ReplicatedVariable, VariableError

REPLICATED = P()
VALUE = np.arange(4096, dtype=np.float32)


def aligned(value):
    """A numpy array that jax on a CPU would use in place instead of copying."""
    raw = np.zeros(value.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array = raw[start : start + value.nbytes].view(value.dtype)
    array[:] = value
    return array


def mesh():
    return Mesh(np.array(jax.devices()), ("replica",))


def on(*names, spec=REPLICATED):
    devices = np.array(jax.devices()).reshape((8,) if len(names) == 1 else (2, 4))
    return lambda value: jax.device_put(value, NamedSharding(Mesh(devices, names), spec))


SOURCES = {
    "numpy": aligned,
    "one device": jnp.array,
    "committed": lambda value: jax.device_put(value, jax.devices()[0]),
    "equal sharding": on("replica"),
    "sharded": on("replica", spec=P("replica")),
    "another mesh": on("a", "b"),
}
WRITES = {
    "constructor": lambda source: ReplicatedVariable("v", source),
    "list": lambda source: ReplicatedVariable("v", [source]),
    "sharded": lambda source: ReplicatedVariable("v", source, mesh=mesh(), sharding=P("replica")),
    "assign": lambda source: written("assign", source),
    "assign_add": lambda source: written("assign_add", source),
    "assign_replicas": lambda source: written("assign_replicas", [source]),
    "replace": lambda source: ReplicatedVariable("v", np.zeros_like(VALUE)).replace(source),
    "from_replicas": lambda source: ReplicatedVariable.from_replicas("v", source[None]),
}

donating = jax.jit(lambda v: v.replace(v + 1.0), donate_argnums=0)


def written(method, source):
    variable = ReplicatedVariable("v", np.zeros_like(VALUE), mesh=mesh())
    getattr(variable, method)(source)
    return variable


def pointers(array):
    return {shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards}


@pytest.mark.parametrize("write", WRITES)
def test_numpy_memory_may_change_as_soon_as_it_was_given(write, monkeypatch):
    """Large: a copy that is still under way when the caller goes on would see the change."""
    large = np.arange(1 << 22, dtype=np.float32)
    monkeypatch.setitem(globals(), "VALUE", large)
    given = aligned(large)
    variable = WRITES[write](given)
    given[:] = -1
    np.testing.assert_array_equal(variable, large)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("write", WRITES)
def test_donating_the_variable_spares_what_it_was_given(source, write):
    given = SOURCES[source](VALUE)
    variable = WRITES[write](given)
    if isinstance(given, jax.Array):
        assert not pointers(given) & pointers(variable.value)
    else:
        given += 1  # and numpy's later changes do not reach the variable
        np.testing.assert_array_equal(variable, VALUE)
        given -= 1
    after = donating(variable)
    np.testing.assert_array_equal(given, VALUE)
    np.testing.assert_array_equal(after, VALUE + 1)


def test_device_put_alone_would_not_do():
    """Says why `place` copies: if this fails, jax has changed and the copy can go."""
    given = jnp.array(VALUE)
    everywhere = ReplicatedVariable("v", 0).sharding
    alias = jax.device_put(given, everywhere, may_alias=False)
    assert pointers(given) & pointers(alias)


def test_one_variable_assigned_to_another_stays_apart():
    a, b = ReplicatedVariable("a", VALUE), ReplicatedVariable("b", VALUE)
    b.assign(a)
    donating(a)
    np.testing.assert_array_equal(b, VALUE)


@pytest.mark.parametrize(
    "read",
    [
        lambda v: v.read_value(),
        lambda v: v.replica(0),
        lambda v: v.replica(7),
        lambda v: v.stacked()[0],
        lambda v: v.assign_add(jnp.zeros_like(v), read_value=True),
        lambda v: v.assign(v, read_value=True),
    ],
)
def test_what_was_read_survives_assignment_and_donation(read):
    variable = ReplicatedVariable("v", VALUE)
    before = read(variable)
    donating(variable)
    np.testing.assert_array_equal(before, VALUE)
    variable.assign(VALUE + 5)
    np.testing.assert_array_equal(before, VALUE)


def test_stacked_survives_donation():
    variable = ReplicatedVariable("v", VALUE)
    stacked = variable.stacked()
    assert not pointers(stacked) & pointers(variable.value)
    donating(variable)
    np.testing.assert_array_equal(stacked, np.stack([VALUE] * 8))


def test_donating_what_was_read_spares_the_variable():
    variable = ReplicatedVariable("v", VALUE)
    jax.jit(lambda x: x + 1, donate_argnums=0)(variable.read_value())
    np.testing.assert_array_equal(variable, VALUE)


def test_a_donated_variable_says_so_and_can_be_assigned_anew():
    variable = ReplicatedVariable("v", VALUE)
    donating(variable)
    with pytest.raises(
        VariableError, match=r"variable 'v' was donated .*variable that it returned"
    ):
        variable.read_value()
    variable.assign(VALUE)
    np.testing.assert_array_equal(variable, VALUE)
