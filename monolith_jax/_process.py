"""Which process this is, told so that another one can see whether it is still there.

A process id says something only on its machine, and there only until it is given to the next
process. So the machine goes with it (containers count as machines of their own), and the moment at
which the process started.
"""

import hashlib
import logging
import os
import platform
from typing import NamedTuple

_log = logging.getLogger(__name__)


class Process(NamedTuple):
    """A process.

    Attributes:
      machine: 8 hex digits, of host name and process-id namespace.
      pid: its id there.
      started: when it started, as the kernel counts; "" where the kernel does not say.
    """

    machine: str
    pid: int
    started: str


def this_process() -> Process:
    """Returns this process.

    Example:
      >>> is_gone(this_process())
      False
    """
    return Process(_machine(), os.getpid(), _started(os.getpid()) or "")


def is_gone(process: Process) -> bool:
    """Whether a process has surely ended; one of another machine never has.

    Example:
      >>> is_gone(this_process()._replace(started="1"))  # its id was given to another one
      True
      >>> is_gone(Process("00000000", 1 << 30, ""))
      False
    """
    if process.machine != _machine():
        return False
    try:
        os.kill(process.pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's: it is there, but need not be this one
        _log.debug("process %d is another user's", process.pid)
    started = _started(process.pid)
    return bool(process.started and started) and started != process.started


def _machine() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux: no containers of this kind either
        namespace = ""
    text = f"{platform.node()} {namespace}"
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _started(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            # "pid (name) state ...": a name may hold anything, brackets and blanks too
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
