"""Checks what several processes read between them.

A crc32c covers a stored part. Where no process reads all of it, each tells the others the crcs of
the ranges that it did read, and all combine them.
"""

import logging
from collections.abc import Sequence

import jax
import numpy as np

from monolith_jax.checkpoint.tf import _read
from monolith_jax.checkpoint.tf._files import DataFiles

_log = logging.getLogger(__name__)


def check_together(files: DataFiles, partial: Sequence[_read.Job]) -> None:
    """Checks the jobs of which this process read only a part; all processes call it alike.

    Raises:
      CheckpointError: data is damaged; in every process that read some of it.
    """
    left = list(partial)
    if jax.process_count() > 1:
        rows = [(*job.entry[2:4], *span) for job in partial for span in job.spans]
        found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for shard, offset, start, length, crc in _gather(rows):
            found.setdefault((shard, offset), []).append((start, length, crc))
        for job in left:
            job.spans = found[job.entry.shard, job.entry.offset]
        left = _read.check(files, left)
    if left:
        _log.info("%d stored parts were read in part; their crc32c is not checked", len(left))


def _gather(rows: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Returns the rows of all processes."""
    from jax.experimental import multihost_utils

    # as bytes: without 64-bit types jax would cut the numbers
    mine = np.array(rows, np.int64).reshape(-1, 5).view(np.uint8).reshape(-1)
    counts = multihost_utils.process_allgather(np.array([len(mine)], np.int32)).reshape(-1)
    padded = np.zeros(max(int(counts.max()), 1), np.uint8)
    padded[: len(mine)] = mine
    everyone = multihost_utils.process_allgather(padded).reshape(len(counts), -1)
    out: list[tuple[int, ...]] = []
    for count, theirs in zip(counts, everyone, strict=True):
        table = np.ascontiguousarray(theirs[:count]).view(np.int64).reshape(-1, 5)
        out += [tuple(row) for row in table.tolist()]
    return out
