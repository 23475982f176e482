"""Reads stored arrays into memory: in pieces, on several threads, each piece checksummed.

A piece that lies in one target as it lies in the file is read straight into it. The crcs of the
pieces are combined into that of the entry, so that nothing is read twice to be checked.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from monolith_jax._machine import usable_cores
from monolith_jax.checkpoint.tf import _plan
from monolith_jax.checkpoint.tf._crc import combine_spans, crc32c, unmask
from monolith_jax.checkpoint.tf._errors import blame
from monolith_jax.checkpoint.tf._files import DataFiles
from monolith_jax.checkpoint.tf._protos import Entry
from monolith_jax.errors import CheckpointError

_ALIGN = 64  # XLA:CPU takes such a buffer as it is
_HUGE = 2 << 20  # bytes of a huge page, which costs one page fault instead of 512
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
    """Returns `size` bytes that begin at a multiple of 64, or of a huge page if they fill some."""
    step = _HUGE if size >= 2 * _HUGE else _ALIGN
    raw = np.empty(size + step, np.uint8)
    start = -raw.ctypes.data % step
    return raw[start : start + size]


def threads() -> int:
    """Returns how many threads read: one for each core, at most 8."""
    return min(8, usable_cores())


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
    pieces = _pieces(files, jobs, limit, gap)

    def run(job: Job, piece: _plan.Range) -> None:
        with blame(f"{files.path(job.entry.shard)}: tensor {job.name!r}"):
            done(job.name, _read_run(files, job, piece, limit, check_crc, scratch))

    wanted = sum(target.out.nbytes for job in jobs for target in job.targets)
    if workers == 1 or (files.local and wanted <= _INLINE):
        for job, piece in pieces:
            run(job, piece)
    else:
        _share(run, pieces, workers)


def _share(
    run: Callable[[Job, _plan.Range], None],
    work: Iterator[tuple[Job, _plan.Range]],
    workers: int,
) -> None:
    """Runs the work on this thread and others, each taking the next piece; an error ends all."""
    lock = threading.Lock()
    errors: list[BaseException] = []

    def take() -> None:
        try:
            while not errors:
                with lock:
                    piece = next(work, None)
                if piece is None:
                    return
                run(*piece)
        except BaseException as error:
            errors.append(error)

    with ThreadPoolExecutor(workers - 1, "read") as pool:
        for _ in range(workers - 1):
            pool.submit(take)
        take()
    if errors:
        raise errors[0]


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
    chunk, crc = min(file.chunk, limit), 0
    for piece, parts, direct in _steps(job, run, chunk):
        start, size = _plan.extent(job.shape, piece)
        flat = _scratch(scratch, size) if direct is None else direct.reshape(-1)
        for at in range(0, size, chunk):
            view = memoryview(flat[at : at + chunk].data)
            file.read_into(view, job.entry.offset + start + at)
            if check_crc:
                crc = crc32c(view, crc)
        rows = flat.reshape(piece.stop - piece.start, *job.shape[len(piece.lead) + 1 :])
        for part, source, _ in parts:
            if part is not direct:
                np.copyto(part, rows[source])
    start, size = _plan.extent(job.shape, run)
    if check_crc:
        job.spans.append((start, size, crc))
    return size


def _steps(
    job: Job, run: _plan.Range, chunk: int
) -> Iterator[tuple[_plan.Range, list[_plan.View], np.ndarray | None]]:
    """Yields the pieces of a range that lie in one target as in the file, others up to a chunk.

    With each come its views, and the target's part that it can be read into, if there is one.
    """
    parts = list(_plan.views(job.shape, run, job.targets))
    direct = next((p for p, _, everything in parts if everything and p.flags.c_contiguous), None)
    size = _plan.extent(job.shape, run)[1]
    if direct is not None or size <= chunk:
        yield run, parts, direct
        return
    for half in _plan.split(job.shape, run, max(size // 2, chunk)):
        yield from _steps(job, half, chunk)


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
