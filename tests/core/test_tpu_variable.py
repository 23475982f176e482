"""A script written for Monolith's tpu_variable runs after its import line is changed."""

import inspect

import jax
import numpy as np
import pytest

from monolith_jax.core import tpu_variable
from monolith_jax.core.tpu_variable import ReplicatedVariable

# Public names of the original's class, with the arguments of its methods.
MEMBERS = {
    "handle": None,
    "initializer": None,
    "graph": None,
    "name": None,
    "dtype": None,
    "shape": None,
    "constraint": None,
    "op": None,
    "get_shape": [],
    "to_proto": ["export_scope"],
    "read_value": [],
    "assign": ["value", "use_locking", "name", "read_value"],
    "assign_add": ["delta", "use_locking", "name", "read_value"],
    "assign_sub": ["delta", "use_locking", "name", "read_value"],
    "get": [],
    "_shared_name": None,
    "_unique_id": None,
    "_in_graph_mode": None,
    "_should_act_as_resource_variable": [],
    "_dense_var_to_tensor": ["dtype", "name", "as_ref"],
}
DEFAULTS = {"assign": False, "assign_add": True, "assign_sub": True}


def test_binds_every_public_name():
    assert set(tpu_variable.__all__) == {"ReplicatedVariable", "VariableBase", "TF_23"}
    assert issubclass(ReplicatedVariable, tpu_variable.VariableBase)


@pytest.mark.parametrize(("member", "arguments"), MEMBERS.items())
def test_has_every_member_with_its_arguments(member, arguments):
    attribute = inspect.getattr_static(ReplicatedVariable, member)
    if arguments is None:
        assert isinstance(attribute, property)
        return
    parameters = inspect.signature(attribute).parameters
    assert list(parameters)[1:] == arguments
    if member in DEFAULTS:
        assert parameters["read_value"].default is DEFAULTS[member]


def test_the_constructor_takes_name_and_variables():
    assert list(inspect.signature(ReplicatedVariable).parameters)[:2] == ["name", "variables"]


def test_an_assignment_reaches_every_copy():
    """The original's, outside of a TPU context, wrote the first copy alone."""
    copies = [jax.device_put(np.float32([1, 2]), device) for device in jax.devices()]
    variable = ReplicatedVariable("v", copies)
    variable.assign(np.float32([3, 4]))
    for i in range(8):
        np.testing.assert_array_equal(variable.replica(i), [3, 4])


def test_the_originals_broken_shared_name_is_the_name():
    assert ReplicatedVariable("v", [1.0])._shared_name == "v"
