"""The devices of a TPU slice that is not there, for compiling only."""

import contextlib
import importlib.util
import math
import os
import re
from typing import Any

from monolith_jax.errors import ConfigError
from monolith_jax.planning.chips import chip_of

_SWITCHES = {
    "TPU_SKIP_MDS_QUERY": "1",  # no questions to a Cloud VM's metadata server
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a plan takes no chip from a program that runs
    "TPU_ACCELERATOR_TYPE": "v5p-8",  # unused, but libtpu complains of its absence
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}

_FLAG = "--xla_tpu_use_enhanced_launch_barrier"
"""jax itself gives it to libtpu where a TPU is attached; a saved step is to be compiled alike."""

_ONE_HOST = {"v5e:2x4", "v6e:2x4"}
"""Slices of 8 chips on one host (v5litepod-8, v6e-8), where libtpu by itself takes two hosts."""

_CPU = re.compile(r"cpu:([1-9]\d*)")


def cpus_of(topology: str) -> list[Any] | None:
    """Returns the CPU devices of `cpu:N`, a rehearsal of the way to a TPU; None: it is no such.

    They are of this process, which must not have looked for its devices yet, or have N of them.

    Raises:
      ConfigError: it has fewer.
    """
    found = _CPU.fullmatch(topology)
    if found is None:
        return None
    import jax

    wanted = int(found[1])
    with contextlib.suppress(RuntimeError):  # there already, told by XLA_FLAGS perhaps
        jax.config.update("jax_num_cpu_devices", wanted)
    devices = jax.devices("cpu")
    if len(devices) < wanted:
        raise ConfigError(f"topology {topology!r}: this process has {len(devices)} CPU devices")
    return devices[:wanted]


def devices_of(topology: str) -> list[Any]:
    """Returns the devices of a slice, which programs can be compiled for but not run on.

    TPU7x has two devices a chip, the others one. Call it before jax has looked for its devices,
    where the program's own ones are not to be TPUs: it sets the environment that libtpu wants.

    Args:
      topology: `CHIP:SIDES`, as in "v5e:16x16" or "v5p:4x4x4".

    Raises:
      ConfigError: no such topology, or libtpu, which has the compiler, is not installed.
    """
    _, sides = chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "planning needs the TPU compiler, which works without a TPU: "
            "pip install 'monolith-jax[tpu]'"
        )
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    flags = os.environ.get("LIBTPU_INIT_ARGS", "")
    if _FLAG not in flags:
        os.environ["LIBTPU_INIT_ARGS"] = f"{flags} {_FLAG}=true".strip()
    from jax.experimental import topologies

    # By default a host has 2x2x1 chips, which libtpu 0.0.42 wants of smaller slices too.
    one_host = topology in _ONE_HOST or math.prod(sides) < 4
    hosts = {"chips_per_host_bounds": (*sides, 1)[:3]} if one_host else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **hosts)
    except Exception as error:  # jax wraps none of what libtpu raises.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"topology {topology!r}: the TPU compiler knows none: {reason}"
        ) from error
    return list(found.devices)
