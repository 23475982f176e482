"""Rows of tables in the memory of CPUs, read, changed and written by kernels that fetch ahead.

rows.py      the door: `take` and `put`, rows of tables as jax sees them
picking.py   and `pick`, a batch's rows by its ids, with the sum that is its derivative
updating.py  and `update`, rows changed by their rule where they lie
formula.py   a rule's formula in instructions for one row
register.py  the kernels made known to XLA
kernels.py   what they do to the bytes, block by block
places.py    what malloc has to give back when a step's memory moves
share.py     the blocks of one call, dealt out to XLA's own threads
frame.py     XLA's C interface: what a call comes with
machine.py   the few instructions that Python has no word for
"""
