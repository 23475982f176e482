"""Rows of tables in the memory of CPUs, read and written by kernels that fetch ahead.

rows.py      the door: `take`, `pick` and `put`, as jax sees them
kernels.py   what they do to the bytes, block by block
share.py     the blocks of one call, dealt out to XLA's own threads
frame.py     XLA's C interface: what a call comes with
machine.py   the few instructions that Python has no word for
"""
