"""The form of every benchmark: two sides, interleaved in one run, reported as a ratio.

A case is a pair of functions that do the same work, in this process or, where one side's settings
would touch the other, in processes of their own (`elsewhere`). After a warm-up they run in turns,
so that both see the same noise, and each side's median counts. The ratio is theirs / ours: above 1
we are faster. The spread is the interquartile range of the paired ratios, relative to the ratio.
"""

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "numba", "tensorflow", "optree")


@dataclass(frozen=True)
class Row:
    """One line of a report: median seconds of both sides, their ratio and its spread."""

    case: str
    ours_s: float
    theirs_s: float
    theirs: str
    ratio: float
    spread: float


def compare(
    case: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    theirs_name: str,
    repeats: int = 11,
    warmup: int = 2,
    steps: int = 1,
) -> Row:
    """Times both sides in turns and returns the row; each function must wait for its own result.

    Where a function makes several `steps`, the row is of one.
    """
    for _ in range(warmup):
        ours()
        theirs()
    pairs = [(_seconds(ours) / steps, _seconds(theirs) / steps) for _ in range(repeats)]
    return summarize(case, pairs, theirs_name)


def summarize(case: str, pairs: Sequence[tuple[float, float]], theirs_name: str) -> Row:
    """Returns the row of (ours, theirs) seconds that were measured side by side.

    Example:
      >>> summarize("copy", [(1.0, 2.0), (1.0, 2.0), (1.0, 2.0)], "numpy")
      Row(case='copy', ours_s=1.0, theirs_s=2.0, theirs='numpy', ratio=2.0, spread=0.0)
    """
    ours_s = statistics.median(ours for ours, _ in pairs)
    theirs_s = statistics.median(theirs for _, theirs in pairs)
    ratios = [theirs / ours for ours, theirs in pairs]
    spread = 0.0
    if len(ratios) > 1:
        low, middle, high = statistics.quantiles(ratios, n=4)
        spread = (high - low) / middle
    return Row(case, ours_s, theirs_s, theirs_name, theirs_s / ours_s, spread)


@contextlib.contextmanager
def elsewhere(module: str, *arguments: str) -> Iterator[Callable[[], object]]:
    """Gives a side that runs in a process of its own, `python -m module ARGUMENTS`.

    The process is to end in `serve`. What a turn costs beyond its step is a word through a pipe
    each way, some 0.1 ms.
    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        say, hear = process.stdin, process.stdout

        def one() -> None:
            say.write("again\n")
            say.flush()
            if hear.readline() != "done\n":
                raise RuntimeError(f"{' '.join(command)} ended; what it printed says why")

        yield one


def serve(step: Callable[[], object], steps: int = 1) -> None:
    """Makes so many steps for each line of standard input, and says so."""
    for _ in sys.stdin:
        for _ in range(steps):
            step()
        print("done", flush=True)


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def arguments(doc: str | None) -> argparse.Namespace:
    """Parses the flags that every suite has; `doc` is the suite's own docstring."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, few repeats: a smoke run"
    )
    return parser.parse_args()


def report(rows: Sequence[Row], json_file: Path | None) -> None:
    """Prints machine, versions and the table, and writes the JSON rows if a file was named."""
    machine = {"machine": platform.machine(), "cpu": _cpu_name(), "cores": _cores()}
    versions = {"python": platform.python_version()} | _versions()
    print("  ".join(f"{k}={v}" for k, v in {**machine, **versions}.items()))
    width = max(len(row.case) for row in rows)
    print(f"{'case':{width}}  {'ours':>10}  {'theirs':>10}  {'ratio':>7}  {'spread':>7}  against")
    for row in rows:
        print(
            f"{row.case:{width}}  {row.ours_s * 1e3:8.3f}ms  {row.theirs_s * 1e3:8.3f}ms"
            f"  {row.ratio:6.2f}x  {row.spread:7.0%}  {row.theirs}"
        )
    if json_file is not None:
        document = {**machine, "versions": versions, "rows": [asdict(row) for row in rows]}
        json_file.write_text(json.dumps(document, indent=1) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "-"
    return found


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
