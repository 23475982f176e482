"""Memory of train steps on CPUs: kept from one step to the next, and in large pages.

XLA's CPU programs ask malloc for their temporaries at each step and free them at its end. Linux's
malloc (glibc) maps every large block anew and unmaps it when it is freed, so such a step pays a
page fault for each 4 KiB of its temporaries, which is a third to a half of its time. The
remedies, none of which changes a number:

    step_options         fewer temporaries, in blocks that malloc can keep; `Program` has them
    keep_freed_memory    malloc keeps what was freed, in the whole process: who owns it decides;
                         `monolith-jax` does
    one_step_at_a_time   those of one step are free before the next one asks for its own, and given
                         back if that gets another place
    use_huge_pages       tables in pages of 2 MiB: less time for finding the place of a row
"""

import ctypes
import os
import sys
from typing import Any

import numpy as np

HEAP = 240_000_000
"""Most bytes of a block of temporaries: below `_MAPPED`, so that malloc can keep it.

Several small blocks would each lose its place to other arrays that are made between two steps.
"""

PLACES = np.zeros(128, np.int64)
"""What kernels on CPUs know of malloc and of a step's memory (`embedding/_cpu/places.py`)."""

_MAPPED = 256 << 20  # bytes of a block that malloc maps anew
_HEAP_SIZE = "xla_multiheap_size_constraint_per_heap"
_SCHEDULER = "xla_cpu_scheduler_type"  # XLA's own choice runs more at once, and keeps more at once
_HUGE = 2 << 20
_PIECE = 64 << 20  # bytes that are moved at once: where a page is refused, so is the rest of them
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
# The names above are malloc.h's, those below mman.h's.
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25


def step_options(device: Any = None, largest: int = 0) -> dict[str, Any]:
    """Returns compiler options for a step: few temporaries, in blocks that malloc keeps.

    For a step of your own: `jax.jit(step, donate_argnums=0, compiler_options=step_options())`. Such
    a function cannot be called within another `jax.jit`.

    Args:
      device: that the step runs on; None: jax's default device.
      largest: bytes of the largest temporary, if known. Where it does not fit in a block, blocks
        are left to the compiler, which would warn of it: it is mapped anew in any case.

    Returns:
      Options by name, without those that XLA_FLAGS has; none for other devices than CPUs.

    Example:
      >>> import jax
      >>> step_options(jax.devices("cpu")[0], largest=1 << 40)
      {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
    """
    import jax  # not before it is needed: the command line answers --help without it

    device = jax.devices()[0] if device is None else device
    if device.platform != "cpu":
        return {}
    options: dict[str, Any] = {_SCHEDULER: "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if sys.platform == "linux" and largest <= HEAP:
        options[_HEAP_SIZE] = HEAP
    given = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in given}


def keep_freed_memory() -> bool:
    """Makes malloc keep what this process frees, for itself; returns whether it could.

    The process's memory then stays at its peak, temporaries included, as with most frameworks' own
    allocators. Call it before the first step: memory that other threads have by then stays as it
    is. It holds for the whole process and for good, so a library leaves it to the program. It does
    nothing where the environment has GLIBC_TUNABLES, which can say the same (docs/engine.md), and
    on other systems.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or "GLIBC_TUNABLES" in os.environ:
        return False
    # Steps run now in one thread, now in another, and each would keep memory of its own: so all
    # threads share the main arena, the only one that holds blocks above 64 MiB.
    settings = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20, _ARENA_MAX: 1}
    keeps = all(mallopt(name, value) == 1 for name, value in settings.items())
    # Older versions refuse more than 32 MiB; there nothing is mapped, however large.
    return keeps and (mallopt(_MMAP_THRESHOLD, _MAPPED) == 1 or mallopt(_MMAP_MAX, 0) == 1)


def one_step_at_a_time() -> None:
    """Has jax run a program on CPUs within the call, and return when its memory is free again.

    Otherwise a step's results are there shortly before its temporaries are free, and the next step,
    if it is called at once, gets another block: now one, now the other. A loop loses nothing by it,
    since the CPUs are busy either way, and its batches are made in other threads. When a block
    still has to move, what is free by then is given back first, by the kernel that reads the
    tables (`embedding/_cpu/places.py`).

    To be called before jax makes its first array. It is jax's own setting
    `jax_cpu_enable_async_dispatch`, and does nothing where the environment has that.
    """
    import jax

    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" in os.environ:
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        PLACES[0] = ctypes.cast(trim, ctypes.c_void_p).value or 0


def use_huge_pages(arrays: Any) -> int:
    """Moves arrays on CPUs into pages of 2 MiB, in place, and returns the bytes that were moved.

    A step that is donated its state keeps it in the same memory, so once, before the first step, is
    enough. It copies the arrays within the kernel, about a second for each GB. Where the system
    has no such pages (Linux before 6.1, other systems, none free) those parts stay as they are.

    Args:
      arrays: a pytree; only `jax.Array`s of 2 MiB and more on CPUs are moved.

    Example:
      >>> import jax.numpy as jnp
      >>> use_huge_pages({"small": jnp.zeros(8)})
      0
    """
    if sys.platform != "linux":
        return 0
    import jax

    madvise = ctypes.CDLL(None).madvise
    moved = 0
    for array in jax.tree.leaves(arrays):
        for shard in array.addressable_shards if isinstance(array, jax.Array) else ():
            if shard.device.platform != "cpu":
                continue
            start = jax.block_until_ready(shard.data).unsafe_buffer_pointer()
            first, last = -(-start // _HUGE) * _HUGE, (start + shard.data.nbytes) // _HUGE * _HUGE
            if first >= last:
                continue
            for at in range(first, last, _PIECE):
                part = ctypes.c_void_p(at), ctypes.c_size_t(min(_PIECE, last - at))
                if madvise(*part, _MADV_HUGEPAGE) == 0 and madvise(*part, _MADV_COLLAPSE) == 0:
                    moved += part[1].value
    return moved
