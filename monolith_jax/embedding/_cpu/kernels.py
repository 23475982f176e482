"""What is done to the bytes of rows: ids block by block, and the rows of later ids asked for.

A row lies anywhere in memory, so an id costs a miss of the cache, and what makes a kernel fast is
how many misses are under way at once. XLA's loops have those of a few ids; these ask for the row of
an id `AHEAD` of where they are. Ids are walked one feature after the other: the rows of one
feature's ids, many of which come again, stay in a core's own cache, where all features' would not.
"""

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
from monolith_jax.embedding._cpu.frame import argument, asks_for_metadata, attribute, result
from monolith_jax.embedding._cpu.machine import (
    OPTIONS,
    address_of,
    clear,
    copy,
    inlined,
    load,
    load32,
    prefetch,
    store,
)
from monolith_jax.embedding._cpu.share import help_with, new_call, share

BLOCK = 8192
"""Ids of a block, of one feature each: enough that taking one costs nothing beside it."""

AHEAD = 32
"""Ids; a row that is asked for now is there when its turn comes."""

_LINE = 64
_SOURCES = ("kernels", "share", "frame", "machine")

READ, WRITE = "monolith_jax_read_rows", "monolith_jax_write_rows"
"""The names of `_read_rows` and `_write_rows` in programs."""

CLIP, ZERO, DROP = 0, 1, 2
"""What is done for an id beyond the rows: the last row is read, zeros are; nothing is written."""

_TASK = "monolith_jax_rows_task"
_task_address = address_of(_TASK)


@inlined
def _move(given, number, size):  # type: ignore[no-untyped-def]
    """Moves the rows of one block, of `size` bytes each, to or from the batch's array."""
    table, rows, index, batch = load(given, 0), load(given, 1), load(given, 2), load(given, 3)
    each, array, beyond = load(given, 4), load(given, 5), load(given, 6)
    blocks = (batch + BLOCK - 1) // BLOCK
    feature, first = number // blocks, number % blocks * BLOCK
    last = min(first + BLOCK, batch)
    for example in range(first, last):
        at = example * each + feature
        if example + AHEAD < last:
            later = table + min(load32(index, at + AHEAD * each), rows - 1) * size
            for line in range(0, size, _LINE):
                prefetch(later + line)
        row = load32(index, at)
        if beyond == CLIP:
            row = max(0, min(row, rows - 1))
        if not 0 <= row < rows:
            if beyond == ZERO:
                clear(array + at * size, size)
        elif beyond == DROP:
            copy(table + row * size, array + at * size, size)
        else:
            copy(array + at * size, table + row * size, size)


@inlined
def _block(given, number):  # type: ignore[no-untyped-def]
    """As `_move`; a size that is known when it is compiled is a few instructions, not a call."""
    size = load(given, 7)
    if size == 64:
        _move(given, number, 64)
    elif size == 128:
        _move(given, number, 128)
    elif size == 32:
        _move(given, number, 32)
    else:
        _move(given, number, size)


def _help(memory):  # type: ignore[no-untyped-def]
    """XLA_FFI_Task."""
    help_with(memory, _block)


@inlined
def _share(frame, table, index, batch, each, array):  # type: ignore[no-untyped-def]
    """Moves all rows of a call. Attributes: `beyond`, `rows` of the table, bytes of one, `size`."""
    memory, given = new_call((batch + BLOCK - 1) // BLOCK * each, 8)
    store(given, 0, table)
    store(given, 1, attribute(frame, 1))
    store(given, 2, index)
    store(given, 3, batch)
    store(given, 4, each)
    store(given, 5, array)
    store(given, 6, attribute(frame, 0))
    store(given, 7, attribute(frame, 2))
    share(frame, memory, _task_address(), _block)


def _read_rows(frame):  # type: ignore[no-untyped-def]
    """XLA_FFI_Handler: a table, ids int32 [batch, each]; rows [batch, each, unit]."""
    if not asks_for_metadata(frame):
        table, _ = argument(frame, 0)
        index, shape = argument(frame, 1)
        _share(frame, table, index, load(shape, 0), load(shape, 1), result(frame))
    return 0


def _write_rows(frame):  # type: ignore[no-untyped-def]
    """XLA_FFI_Handler: a table, ids int32 [batch], no two alike, rows; the table, in place."""
    if not asks_for_metadata(frame):
        index, shape = argument(frame, 1)
        array, _ = argument(frame, 2)
        _share(frame, result(frame), index, load(shape, 0), 1, array)
    return 0


def register() -> bool:
    """Makes the kernels known to XLA, once in a process; compiled, they are kept on disk.

    Returns whether XLA takes them: it refuses those for a version of its interface that it no
    longer has.
    """
    with _ONCE:
        if not _STATE:
            _STATE.append(_register())
    return _STATE[0]


def _register() -> bool:
    helper = _compiled(types.void(types.int64), _help)
    binding.add_symbol(_TASK, helper.address)
    _KEPT.append(helper)
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype = ctypes.py_object
    capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    for name, function in ((READ, _read_rows), (WRITE, _write_rows)):
        handler = _compiled(types.int64(types.int64), function)
        _KEPT.append(handler)
        try:
            jax.ffi.register_ffi_target(name, capsule(handler.address, None, None), platform="cpu")
        except jax.errors.JaxRuntimeError as error:
            _LOG.warning("rows on CPUs are moved by XLA's own loops, more slowly: %s", error)
            return False
    return True


_LOG = logging.getLogger(__name__)
_ONCE = threading.Lock()

_STATE: list[bool] = []
"""Whether XLA took the kernels, once it was asked."""

_KEPT: list[Any] = []
"""What numba compiled: it lives as long as the object that numba gave."""


def _compiled(signature: Any, function: Callable[..., Any]) -> Any:
    sources = [Path(__file__).with_name(f"{name}.py") for name in _SOURCES]
    return compiled(partial(cfunc, signature, **OPTIONS), function, sources)
