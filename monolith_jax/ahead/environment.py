"""What a compiled program depends on besides the program: versions, devices, flags."""

import hashlib
import importlib.metadata
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

_NO_MATTER = re.compile(r"--(xla_dump_|xla_force_host_platform_device_count)")
"""Flags that change nothing about the result of compiling."""


def environment(devices: Sequence[Any]) -> dict[str, str]:
    """Returns, by name, what must be the same where a program is compiled and where it runs.

    Args:
      devices: those of the program, there or not (`planning.topology.devices_of`).

    Example:
      >>> found = environment(jax.devices()[:2])
      >>> found["jax"] == jax.__version__, found["devices"], found["hosts"]
      (True, '2', '1')
    """
    first = devices[0]
    found = {
        "jax": jax.__version__,
        "jaxlib": _version("jaxlib"),
        "platform": first.platform,
        "compiler": _build(first.client.platform_version),
        "device kind": first.device_kind,
        "devices": str(len(devices)),
        "hosts": str(len({device.process_index for device in devices})),
        "order of devices": _short(" ".join(str(device.id) for device in devices)),
        "XLA_FLAGS": _flags("XLA_FLAGS"),
        "debug_nans": str(jax.config.jax_debug_nans),  # type: ignore[attr-defined]
    }
    if first.platform == "tpu":
        found |= {"libtpu": _version("libtpu"), "LIBTPU_INIT_ARGS": _flags("LIBTPU_INIT_ARGS")}
    if first.platform == "cpu":
        found["processor"] = _processor()
    return found


def differences(saved: dict[str, str], here: dict[str, str]) -> list[str]:
    """Returns a line for each field that is not the same.

    Example:
      >>> differences({"jax": "0.9.0", "devices": "8"}, {"jax": "0.10.2", "devices": "8"})
      ['jax: 0.9.0 saved, 0.10.2 here']
    """
    return [
        f"{name}: {saved.get(name, 'none')} saved, {here.get(name, 'none')} here"
        for name in dict.fromkeys((*here, *saved))
        if saved.get(name, "none") != here.get(name, "none")
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _build(version: str) -> str:
    r"""Returns the build within a client's version; what stands before it names the client.

    Example:
      >>> _build("PJRT C API\nTFRT TPU v5 lite\nBuilt on Nov 5 2026 (17) cl/1014")
      'Built on Nov 5 2026 (17) cl/1014'
    """
    found = re.search(r"Built on .*", version)
    return found[0] if found else version


def _flags(variable: str) -> str:
    flags = os.environ.get(variable, "").split()
    return " ".join(sorted(flag for flag in flags if not _NO_MATTER.match(flag))) or "none"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _processor() -> str:
    """Returns what tells processors apart that run different instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        import platform

        return platform.processor() or platform.machine()
    wanted = ("model name", "flags", "Features")
    told = "".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
    return f"sha256 {hashlib.sha256(told.encode()).hexdigest()[:16]}"
