"""What this machine has for this process."""

import os


def usable_cores() -> int:
    """Returns how many cores the process may run on, 1 or more."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
