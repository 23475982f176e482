"""The kernels made known to XLA, once in a process; compiled, they are kept on disk."""

import ctypes
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from llvmlite import binding
from numba import cfunc, types

from monolith_jax._cache import compiled
from monolith_jax.cpu_memory import PLACES
from monolith_jax.embedding._cpu import kernels, places
from monolith_jax.embedding._cpu.machine import OPTIONS

READ, WRITE, SUM, UPDATE = (
    f"monolith_jax_{verb}_rows" for verb in ("read", "write", "sum", "update")
)
"""The kernels' names in programs; an update's has its rule's behind it."""

_SOURCES = ("kernels", "places", "share", "frame", "machine")


def register() -> bool:
    """Registers the kernels unless they are, and returns whether XLA takes them.

    It refuses those for a version of its interface that it no longer has.
    """
    with _ONCE:
        if not _STATE:
            _STATE.append(_register())
    return _STATE[0]


def _register() -> bool:
    binding.add_symbol(places.SYMBOL, PLACES.ctypes.data)
    for symbol, task in (
        (kernels.MOVE_TASK, kernels.move_task),
        (kernels.SUM_TASK, kernels.sum_task),
        (kernels.UPDATE_TASK, kernels.update_task),
    ):
        binding.add_symbol(symbol, _compiled(types.void(types.int64), task))
    update = _compiled(types.int64(types.int64, types.int64), kernels.update_rows)
    binding.add_symbol(UPDATE, update)
    for name, function in (
        (READ, kernels.read_rows),
        (WRITE, kernels.write_rows),
        (SUM, kernels.sum_rows),
    ):
        try:
            add_target(name, _compiled(types.int64(types.int64), function))
        except jax.errors.JaxRuntimeError as error:
            _LOG.warning("rows on CPUs are moved by XLA's own loops, more slowly: %s", error)
            return False
    return True


def add_target(name: str, address: int) -> None:
    """Makes the XLA_FFI_Handler at an address known by a name.

    Raises:
      jax.errors.JaxRuntimeError: XLA refuses it.
    """
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype = ctypes.py_object
    capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    jax.ffi.register_ffi_target(name, capsule(address, None, None), platform="cpu")


_LOG = logging.getLogger(__name__)
_ONCE = threading.Lock()

_STATE: list[bool] = []
"""Whether XLA took the kernels, once it was asked."""

_KEPT: list[Any] = []
"""What numba compiled: it lives as long as the object that numba gave."""


def _compiled(signature: Any, function: Callable[..., Any]) -> int:
    """Returns the address of a kernel."""
    sources = [Path(__file__).with_name(f"{name}.py") for name in _SOURCES]
    kernel = compiled(partial(cfunc, signature, **OPTIONS), function, sources, len(PLACES))
    _KEPT.append(kernel)
    return int(kernel.address)
