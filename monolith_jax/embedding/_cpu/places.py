"""A step's memory that has moved: the old place is given back before the new one is filled.

XLA asks malloc for a step's temporaries at each step. Where malloc keeps what is freed
(`cpu_memory`) it is nearly always the same place; when it is another one, for want of a few bytes,
the old place would stay in memory beside it.

`PLACES` holds words of 64 bits: the address of malloc_trim, or 0 where malloc is left alone; how
many places are known; then pairs, what was read and where it was put.
"""

from monolith_jax.cpu_memory import PLACES
from monolith_jax.embedding._cpu.machine import address_of, call, inlined, load, store

SYMBOL = "monolith_jax_places"
"""Of `PLACES`."""

NEAR = 8 << 20
"""Bytes that a place may lie beside an earlier one, most of which it then covers."""

_address = address_of(SYMBOL)
_MOST = (len(PLACES) - 2) // 2


@inlined
def settle(read, place):  # type: ignore[no-untyped-def]
    """Has malloc give its free memory back if what is read is put elsewhere than before.

    Several threads may: the worst that comes of it is that memory is given back once more.

    Args:
      read: a number that tells what is read; where there are too many, nothing is done.
      place: the address of the result, in the step's memory, none of which is written yet.
    """
    places = _address()
    trim, known = load(places, 0), load(places, 1)
    if trim == 0:
        return
    nth = 0
    while nth < known and load(places, 2 + 2 * nth) != read:
        nth += 1
    if nth == _MOST or (nth < known and abs(load(places, 3 + 2 * nth) - place) < NEAR):
        return
    store(places, 2 + 2 * nth, read)
    store(places, 3 + 2 * nth, place)
    store(places, 1, max(known, nth + 1))
    call(trim, 0)
