"""The blocks of one call, dealt out to XLA's own threads.

Blocks are numbered, and whoever is free takes the next number. The caller works too, and waits only
for blocks that a thread is at, never for a thread that has not begun: were all of XLA's threads
callers, none would ever come. A thread that comes late finds nothing to do; the last to go gives
the call's memory back.

A call's memory is words of 64 bits: the next number, how many blocks are done, how many hold the
memory, how many blocks there are; behind them what the blocks are given.
"""

from monolith_jax.embedding._cpu.frame import schedule, threads
from monolith_jax.embedding._cpu.machine import allocate, fetch_add, inlined, load, release, store

_NEXT, _DONE, _HOLDERS, _BLOCKS, _GIVEN = range(5)


@inlined
def new_call(blocks, given):  # type: ignore[no-untyped-def]
    """Returns (memory of a call of so many blocks, address of the words its blocks are given)."""
    memory = allocate(8 * (_GIVEN + given))
    store(memory, _NEXT, 0)
    store(memory, _DONE, 0)
    store(memory, _HOLDERS, 1)
    store(memory, _BLOCKS, blocks)
    return memory, memory + 8 * _GIVEN


@inlined
def share(frame, memory, task, block):  # type: ignore[no-untyped-def]
    """Does all blocks of a call, in the caller and as many of XLA's threads as there is work for.

    `task` is the address of a C function that is `help_with(memory, block)`.
    """
    blocks = load(memory, _BLOCKS)
    for _ in range(min(threads(frame), blocks) - 1):
        _add(memory, _HOLDERS, 1)
        if not schedule(frame, task, memory):
            _add(memory, _HOLDERS, -1)
    _take_part(memory, block)
    while _add(memory, _DONE, 0) < blocks:
        pass
    _let_go(memory)


@inlined
def help_with(memory, block):  # type: ignore[no-untyped-def]
    """What a thread does that was called for help."""
    _take_part(memory, block)
    _let_go(memory)


@inlined
def _take_part(memory, block):  # type: ignore[no-untyped-def]
    blocks = load(memory, _BLOCKS)
    number = _add(memory, _NEXT, 1)
    while number < blocks:
        block(memory + 8 * _GIVEN, number)
        _add(memory, _DONE, 1)
        number = _add(memory, _NEXT, 1)


@inlined
def _let_go(memory):  # type: ignore[no-untyped-def]
    if _add(memory, _HOLDERS, -1) == 1:
        release(memory)


@inlined
def _add(memory, word, value):  # type: ignore[no-untyped-def]
    return fetch_add(memory + 8 * word, value)
