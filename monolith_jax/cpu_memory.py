"""Memory of train steps on CPUs: kept from one step to the next, and in large pages.

XLA's CPU programs ask malloc for their temporaries at each step and free them at its end. Linux's
malloc (glibc) maps every large block anew and unmaps it when it is freed, so such a step pays a
page fault for each 4 KiB of its temporaries, which is a third to a half of its time. Four
remedies, none of which changes a number:

    step_options         fewer temporaries, in blocks that malloc can keep; `Program` has them
    keep_freed_memory    malloc keeps what was freed, in the whole process: who owns it decides;
                         `monolith-jax` does
    give_back            but not what is left over while a loop's first steps find their places
    use_huge_pages       tables in pages of 2 MiB: less time for finding the place of a row
"""

import ctypes
import os
import sys
import time
from typing import Any

HEAP = 240_000_000
"""Most bytes of a block of temporaries: below `_MAPPED`, so that malloc can keep it.

Several small blocks would each lose its place to other arrays that are made between two steps.
"""

SETTLING = 32
"""Steps of a loop before which memory is given back (`give_back`)."""

_MAPPED = 256 << 20  # bytes of a block that malloc maps anew
_HEAP_SIZE = "xla_multiheap_size_constraint_per_heap"
_SCHEDULER = "xla_cpu_scheduler_type"  # XLA's own choice runs more at once, and keeps more at once
_HUGE = 2 << 20
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
# The names above are malloc.h's, those below mman.h's.
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25

_keeps = "GLIBC_TUNABLES" in os.environ  # which may say what `keep_freed_memory` does


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
    is. It holds for the whole process and for good, so a library leaves it to the program.
    It does nothing where the environment has GLIBC_TUNABLES, which can say the same
    (docs/engine.md), and on other systems.
    """
    global _keeps
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or "GLIBC_TUNABLES" in os.environ:
        return False
    # Steps run now in one thread, now in another, and each would keep memory of its own: so all
    # threads share the main arena, the only one that holds blocks above 64 MiB.
    settings = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20, _ARENA_MAX: 1}
    _keeps = all(mallopt(name, value) == 1 for name, value in settings.items())
    # Older versions refuse more than 32 MiB; there nothing is mapped, however large.
    return _keeps and (mallopt(_MMAP_THRESHOLD, _MAPPED) == 1 or mallopt(_MMAP_MAX, 0) == 1)


def give_back(arrays: Any) -> bool:
    """Waits for arrays on CPUs, then has malloc give its free memory back; returns whether it did.

    For a loop, before each of its first `SETTLING` steps. Making the state and compiling leave free
    memory, and while malloc's caches fill up, a step's temporaries may need another place than the
    last step's: given back, the process does not hold the old place and the new one at once. Each
    such step pays the page faults that `keep_freed_memory` spares the later ones.

    Args:
      arrays: a pytree, of what the last step returned; nothing happens if there is none on a CPU,
        or where malloc keeps nothing.

    Example:
      >>> give_back({"none": None})
      False
    """
    if sys.platform != "linux" or not _keeps:
        return False
    import jax

    leaves = [x for x in jax.tree.leaves(arrays) if isinstance(x, jax.Array)]
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None or not any(d.platform == "cpu" for x in leaves for d in x.devices()):
        return False
    jax.block_until_ready(leaves)
    time.sleep(0.01)  # results are ready shortly before the step's temporaries are freed
    return bool(trim(0))


def use_huge_pages(arrays: Any) -> int:
    """Moves arrays on CPUs into pages of 2 MiB, in place, and returns the bytes that were moved.

    A step that is donated its state keeps it in the same memory, so once, before the first step, is
    enough. It copies the arrays within the kernel, about a second for each GB. Where the system
    has no such pages (Linux before 6.1, other systems, none free) the rest stays as it is.

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
            part = ctypes.c_void_p(first), ctypes.c_size_t(last - first)
            if madvise(*part, _MADV_HUGEPAGE) == 0 and madvise(*part, _MADV_COLLAPSE) == 0:
                moved += last - first
    return moved
