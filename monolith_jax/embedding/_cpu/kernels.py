"""What is done to the bytes of rows: ids in blocks, and the rows of later ids asked for.

A row lies anywhere in memory, so an id costs a miss of the cache, and what makes a kernel fast is
how many misses are under way at once. XLA's loops have those of a few ids; these ask for the row of
an id `AHEAD` of where they are. Ids are walked one feature after the other: the rows of one
feature's ids, many of which come again, stay in a core's own cache, where all features' would not.
"""

from monolith_jax.embedding._cpu.frame import argument, asks_for_metadata, attribute, result
from monolith_jax.embedding._cpu.machine import (
    add,
    address_of,
    allocate,
    apply,
    clear,
    copy,
    inlined,
    load,
    load32,
    prefetch,
    release,
    store,
)
from monolith_jax.embedding._cpu.places import settle
from monolith_jax.embedding._cpu.share import help_with, new_call, share

BLOCK = 8192
"""Ids of a block, of one feature each: enough that taking one costs nothing beside it."""

AHEAD = 32
"""Ids; a row that is asked for now is there when its turn comes."""

_LINE = 64
_NUMBER = 4  # bytes
_TABLES = 10
"""Of what an update is given, the words before the tables' addresses."""

CLIP, ZERO, DROP = 0, 1, 2
"""What is done for an id beyond the rows: the last row is read, zeros are; nothing is written."""

MOVE_TASK, SUM_TASK, UPDATE_TASK = (
    f"monolith_jax_{verb}_task" for verb in ("move", "sum", "update")
)
"""The symbols of `move_task`, `sum_task` and `update_task`."""

_move_task, _sum_task = address_of(MOVE_TASK), address_of(SUM_TASK)
_update_task = address_of(UPDATE_TASK)


@inlined
def _by_size(function, given, number):  # type: ignore[no-untyped-def]
    """Does a block; a size that is known when it is compiled is a few instructions, not a call."""
    size = load(given, 7)
    if size == 64:
        function(given, number, 64)
    elif size == 128:
        function(given, number, 128)
    elif size == 32:
        function(given, number, 32)
    else:
        function(given, number, size)


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
def _move_block(given, number):  # type: ignore[no-untyped-def]
    _by_size(_move, given, number)


def move_task(memory):  # type: ignore[no-untyped-def]
    """XLA_FFI_Task."""
    help_with(memory, _move_block)


@inlined
def _share_moves(frame, table, index, batch, each, array):  # type: ignore[no-untyped-def]
    """Moves all rows of a call. `calls.attributes` has the attributes."""
    memory, given = new_call((batch + BLOCK - 1) // BLOCK * each, 8)
    store(given, 0, table)
    store(given, 1, attribute(frame, 2))
    store(given, 2, index)
    store(given, 3, batch)
    store(given, 4, each)
    store(given, 5, array)
    store(given, 6, attribute(frame, 0))
    store(given, 7, attribute(frame, 3))
    share(frame, memory, _move_task(), _move_block)


def read_rows(frame):  # type: ignore[no-untyped-def]
    """XLA_FFI_Handler: a table, ids int32 [batch, each]; rows [batch, each * unit]."""
    if not asks_for_metadata(frame):
        table, _ = argument(frame, 0)
        index, shape = argument(frame, 1)
        if attribute(frame, 1):
            settle(table + (load(shape, 0) << 40), result(frame, 0))
        _share_moves(frame, table, index, load(shape, 0), load(shape, 1), result(frame, 0))
    return 0


def write_rows(frame):  # type: ignore[no-untyped-def]
    """XLA_FFI_Handler: a table, ids int32 [batch], no two alike, rows; the table, in place."""
    if not asks_for_metadata(frame):
        index, shape = argument(frame, 1)
        array, _ = argument(frame, 2)
        _share_moves(frame, result(frame, 0), index, load(shape, 0), 1, array)
    return 0


@inlined
def _sum(given, number, size):  # type: ignore[no-untyped-def]
    """Adds up the rows of one table: of the `number`th column of ids, and those linked to it."""
    sums, rows, index, batch = load(given, 0), load(given, 1), load(given, 2), load(given, 3)
    each, array, columns = load(given, 4), load(given, 5), load(given, 6)
    if load32(columns, number) != number:
        return  # the table's first column sees to this one
    for example in range(batch):
        column = number
        while column < each:
            at = example * each + column
            if example + AHEAD < batch:
                later = at + AHEAD * each
                row = min(load32(index, later), rows - 1)
                for line in range(0, size, _LINE):
                    prefetch(sums + row * size + line)
                    prefetch(array + later * size + line)
            row = load32(index, at)
            if 0 <= row < rows:
                add(sums + row * size, array + at * size, size // 4)
            column = load32(columns, each + column)


@inlined
def _sum_block(given, number):  # type: ignore[no-untyped-def]
    _by_size(_sum, given, number)


def sum_task(memory):  # type: ignore[no-untyped-def]
    """XLA_FFI_Task."""
    help_with(memory, _sum_block)


def sum_rows(frame):  # type: ignore[no-untyped-def]
    """XLA_FFI_Handler: zeros [n, unit], ids int32 [batch, each], rows, columns; the sums, in place.

    Columns of ids are int32 [2, each]: the first column of the same table, and the next one; each
    table is a block, so that no two threads add to the same row. What else is given is waited for.
    """
    if not asks_for_metadata(frame):
        index, shape = argument(frame, 1)
        memory, given = new_call(load(shape, 1), 8)
        store(given, 0, result(frame, 0))
        store(given, 1, attribute(frame, 2))
        store(given, 2, index)
        store(given, 3, load(shape, 0))
        store(given, 4, load(shape, 1))
        store(given, 5, argument(frame, 2)[0])
        store(given, 6, argument(frame, 3)[0])
        store(given, 7, attribute(frame, 3))
        share(frame, memory, _sum_task(), _sum_block)
    return 0


@inlined
def _update_block(given, number):  # type: ignore[no-untyped-def]
    """Has the rows of one block changed by their rule, each in all the arrays that hold it."""
    index, batch, rows, size = load(given, 0), load(given, 1), load(given, 2), load(given, 3)
    gradient, step, numbers = load(given, 4), load(given, 5), load(given, 6)
    change, count, wide = load(given, 7), load(given, 8), load(given, 9)
    tables = given + 8 * _TABLES
    places = allocate(8 * count)
    first = number * BLOCK
    last = min(first + BLOCK, batch)
    for nth in range(first, last):
        if nth + AHEAD < last:
            later = min(load32(index, nth + AHEAD), rows - 1)
            for table in range(count):
                unit = size if table < wide else _NUMBER
                for line in range(0, unit, _LINE):
                    prefetch(load(tables, table) + later * unit + line)
        row = load32(index, nth)
        if 0 <= row < rows:
            for table in range(count):
                unit = size if table < wide else _NUMBER
                store(places, table, load(tables, table) + row * unit)
            apply(change, places, gradient + nth * step, numbers)
    release(places)


def update_task(memory):  # type: ignore[no-untyped-def]
    """XLA_FFI_Task."""
    help_with(memory, _update_block)


def update_rows(frame, change):  # type: ignore[no-untyped-def]
    """XLA_FFI_Handler for one rule: tables, ids int32 [batch], gradients, numbers; in place.

    `change` is the address of the rule's function, of the addresses of a row's places in all
    tables, of its gradient and of the numbers. `updating.update` has the attributes.
    """
    if not asks_for_metadata(frame):
        count = attribute(frame, 0)
        index, shape = argument(frame, count)
        blocks = (load(shape, 0) + BLOCK - 1) // BLOCK
        memory, given = new_call(blocks, _TABLES + count)
        store(given, 0, index)
        store(given, 1, load(shape, 0))
        store(given, 2, attribute(frame, 1))
        store(given, 3, attribute(frame, 2))
        store(given, 4, argument(frame, count + 1)[0])
        store(given, 5, attribute(frame, 3))
        store(given, 6, argument(frame, count + 2)[0])
        store(given, 7, change)
        store(given, 8, count)
        store(given, 9, attribute(frame, 4))
        for table in range(count):
            store(given, _TABLES + table, result(frame, table))
        share(frame, memory, _update_task(), _update_block)
    return 0
