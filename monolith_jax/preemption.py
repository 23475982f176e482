"""SIGTERM and Ctrl-C: finish the step at hand, save, exit.

The handler only sets a flag, which the loop polls between steps and between evaluation batches. It
is installed before anything slow starts (jax's import, the first compile), so that a signal in any
phase ends in a saved state. A second Ctrl-C kills at once.
"""

import signal
import threading
from types import FrameType
from typing import Any


class Preemption:
    """A flag that SIGTERM or SIGINT sets.

    Example:
      >>> preemption = Preemption()
      >>> preemption.requested
      False
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def requested(self) -> bool:
        """Whether the process was asked to stop."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, as a scheduler wants it; 130 after Ctrl-C, as a shell wants it."""
        return 130 if self.signal == signal.SIGINT else 0

    def install(self) -> "Preemption":
        """Takes over SIGTERM and SIGINT; in a thread other than the main one, does nothing."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handle)
            signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
