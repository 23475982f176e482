"""Reads stored arrays into memory: in pieces, on several threads, each piece checksummed.

A piece that lies in one target as it lies in the file is read straight into it. The crcs of the
pieces are combined into that of the entry, so that nothing is read twice to be checked.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from monolith_jax.checkpoint.tf import _plan
from monolith_jax.checkpoint.tf._crc import combine_spans, crc32c, unmask
from monolith_jax.checkpoint.tf._errors import blame
from monolith_jax.checkpoint.tf._files import DataFile, DataFiles
from monolith_jax.checkpoint.tf._protos import Entry
from monolith_jax.errors import CheckpointError

_ALIGN = 64  # XLA:CPU takes such a buffer as it is
_RUN = 16 << 20  # bytes that a thread reads, chunk by chunk, before it asks for more work
_INLINE = 2 << 20  # bytes; below, starting threads costs more than they save


@dataclass
class Job:
    """A stored array of which some boxes are wanted.

    Attributes:
      name: whose it is, for errors.
      entry: where it lies.
      shape: its own shape with the bytes of an element as the last dimension.
      targets: what is wanted of it.
      spans: (start, length, crc32c) of what was read, from the entry's first byte.
    """

    name: str
    entry: Entry
    shape: tuple[int, ...]
    targets: list[_plan.Target]
    spans: list[tuple[int, int, int]] = field(default_factory=list)


def aligned(size: int) -> np.ndarray:
    """Returns `size` bytes that begin at a multiple of 64."""
    raw = np.empty(size + _ALIGN, np.uint8)
    start = -raw.ctypes.data % _ALIGN
    return raw[start : start + size]


def threads() -> int:
    """Returns how many threads read: one for each core, at most 8."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


def read_jobs(
    files: DataFiles,
    jobs: Sequence[Job],
    *,
    check_crc: bool,
    max_memory: int,
    gap: int = _plan.GAP,
    done: Callable[[str, int], None] = lambda name, size: None,
) -> None:
    """Fills the targets of all jobs.

    Args:
      files: the bundle's.
      jobs: what to read.
      check_crc: whether to checksum what is read (the spans); `check` compares.
      max_memory: bytes of scratch memory that all threads together take.
      gap: see `ranges`.
      done: called with the name and the bytes of each piece, on the reading threads.
    """
    workers = threads()
    scratch = threading.local()
    limit = max(max_memory // workers, 1 << 16)

    def run(job: Job, piece: _plan.Range) -> None:
        with blame(f"{files.path(job.entry.shard)}: tensor {job.name!r}"):
            done(job.name, _read_run(files, job, piece, limit, check_crc, scratch))

    wanted = sum(target.out.nbytes for job in jobs for target in job.targets)
    if workers == 1 or (files.local and wanted <= _INLINE):
        for job, piece in _pieces(files, jobs, limit, gap):
            run(job, piece)
        return
    with ThreadPoolExecutor(workers, "read") as pool:
        _run_bounded(pool, run, _pieces(files, jobs, limit, gap), 4 * workers)


def _run_bounded(
    pool: ThreadPoolExecutor,
    run: Callable[[Job, _plan.Range], None],
    work: Iterator[tuple[Job, _plan.Range]],
    most: int,
) -> None:
    """Runs the work with at most `most` pieces under way; the first error ends it."""
    waiting: set[Future[None]] = set()
    try:
        for job, piece in work:
            if len(waiting) >= most:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    future.result()
            waiting.add(pool.submit(run, job, piece))
        for future in waiting:
            future.result()
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _pieces(
    files: DataFiles, jobs: Iterable[Job], limit: int, gap: int
) -> Iterator[tuple[Job, _plan.Range]]:
    for job in jobs:
        with blame(f"{files.path(job.entry.shard)}: tensor {job.name!r}"):
            run = max(min(files.file(job.entry.shard).chunk, limit), _RUN)
        boxes = [target.box for target in job.targets]
        for whole in _plan.ranges(job.shape, boxes, gap):
            for piece in _plan.split(job.shape, whole, run):
                yield job, piece


def _read_run(
    files: DataFiles,
    job: Job,
    run: _plan.Range,
    limit: int,
    check_crc: bool,
    scratch: threading.local,
) -> int:
    """Reads a range in chunks that stay in the cache until they are checksummed."""
    file = files.file(job.entry.shard)
    crc = 0
    for piece in _plan.split(job.shape, run, min(file.chunk, limit)):
        view = _read_piece(file, job, piece, scratch)
        if check_crc:
            crc = crc32c(view, crc)
    start, size = _plan.extent(job.shape, run)
    if check_crc:
        job.spans.append((start, size, crc))
    return size


def _read_piece(
    file: DataFile, job: Job, piece: _plan.Range, scratch: threading.local
) -> memoryview:
    """Reads one chunk into its targets; returns its bytes, which the next chunk may overwrite."""
    start, size = _plan.extent(job.shape, piece)
    parts = list(_plan.views(job.shape, piece, job.targets))
    direct = next((p for p, _, everything in parts if everything and p.flags.c_contiguous), None)
    flat = _scratch(scratch, size) if direct is None else direct.reshape(-1)
    view = memoryview(flat.data)
    file.read_into(view, job.entry.offset + start)
    rows = flat.reshape(piece.stop - piece.start, *job.shape[len(piece.lead) + 1 :])
    for part, source, _ in parts:
        if part is not direct:
            np.copyto(part, rows[source])
    return view


def _scratch(scratch: threading.local, size: int) -> np.ndarray:
    held = getattr(scratch, "buffer", None)
    if held is None or len(held) < size:
        held = scratch.buffer = aligned(size)
    return held[:size]


def check(files: DataFiles, jobs: Sequence[Job]) -> list[Job]:
    """Compares the crc32c of each job's entry; returns the jobs that were read in part only.

    Raises:
      CheckpointError: the data of an entry is damaged.
    """
    partial = []
    for job in jobs:
        crc = combine_spans(job.spans, job.entry.size)
        if crc is None:
            partial.append(job)
        elif crc != unmask(job.entry.crc):
            raise CheckpointError(
                f"{files.path(job.entry.shard)}: tensor {job.name!r}: its data is damaged: the"
                f" crc32c of bytes {job.entry.offset}..{job.entry.offset + job.entry.size} does"
                " not match"
            )
    return partial
