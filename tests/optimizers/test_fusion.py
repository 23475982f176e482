"""With XLA's multi-output fusion an update is one loop, in place, with the same bits."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fused_process import arrays_of, module_of

from monolith_jax.optimizers import MULTI_OUTPUT_FUSION
from monolith_jax.optimizers._fusion import apart, fuses_outputs

SCRIPT = Path(__file__).with_name("_fusion_program.py")
program = module_of(SCRIPT)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """What the program finds in a process that has the flag."""
    return arrays_of(SCRIPT, tmp_path_factory.mktemp("fusion"))


@pytest.mark.parametrize("case", program.RULES)
def test_one_loop_writes_all_outputs_in_place(fused, case):
    programs = json.loads(fused["programs"].tobytes())
    assert programs[case] == {"loops": 1, "copies": 0, "temporary": 0}


def test_without_the_flag_each_output_has_a_loop():
    assert program.compiled("adam") == {"loops": 3, "copies": 0, "temporary": 0}


@pytest.mark.parametrize("case", program.RULES)
@pytest.mark.parametrize("where", program.WHERE)
def test_the_bits_are_the_same(fused, case, where):
    for name, value in program.train(case, where).items():
        found = fused[f"{case}/{where}/{name}"]
        np.testing.assert_array_equal(found, value, err_msg=name)


def test_a_hyperparameter_has_the_same_derivative(fused):
    want = program.derivative()
    assert want != 0
    np.testing.assert_allclose(fused["derivative"], want, rtol=1e-6)


@pytest.mark.parametrize(
    ("flags", "fuses"),
    [
        (MULTI_OUTPUT_FUSION, True),
        (f"--a=1 {MULTI_OUTPUT_FUSION} --b", True),
        ("--xla_backend_extra_options=x=1,xla_cpu_use_multi_output_fusion=true", True),
        ("--xla_backend_extra_options=xla_cpu_use_multi_output_fusion=false", True),
        ("--xla_backend_extra_options=xla_cpu_use_multi_output_fusion_not", False),
        ("--xla_force_host_platform_device_count=8", False),
        ("", False),
    ],
)
def test_the_flag_is_found_among_others(monkeypatch, flags, fuses):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert fuses_outputs() is fuses


def test_apart_is_the_identity_for_every_number():
    values = jnp.asarray([0.0, -0.0, jnp.inf, 1e-40, -3.5], jnp.float32)
    for number in range(32):
        found = jax.jit(lambda x, step, n=number: apart(x, step, n))(values, jnp.int32(7))
        np.testing.assert_array_equal(
            np.asarray(found).view(np.int32), np.asarray(values).view(np.int32)
        )
