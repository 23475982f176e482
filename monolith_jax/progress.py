"""Progress of long work: a line that renews itself on a terminal, plain lines elsewhere."""

import sys
import time
from typing import IO

_RENEW_SECONDS = 0.1
_PLAIN_SECONDS = 10.0


def clock(seconds: float) -> str:
    """Returns seconds as h:mm:ss.

    Example:
      >>> clock(3725.0)
      '1:02:05'
    """
    whole = round(max(seconds, 0.0))
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


class Eta:
    """How long work will still take, from the fraction that is done.

    Args:
      start: the fraction that was done before this process began, at which time counts from.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._start, self._time = start, time.monotonic()

    def text(self, fraction: float) -> str:
        """Returns `ETA h:mm:ss` at `fraction` of the work, in [0, 1]."""
        done = fraction - self._start
        seconds = time.monotonic() - self._time
        return f"ETA {clock(seconds * (1.0 - fraction) / done)}" if done > 0 else "ETA -:--:--"


class ProgressLine:
    r"""One line of progress on a stream (default: standard error).

    Attributes:
      terminal: whether the stream is one, so that a line can renew itself.

    Example:
      >>> import io
      >>> stream = io.StringIO()
      >>> line = ProgressLine("rows", stream)
      >>> line.say("reading")
      >>> stream.getvalue()
      'reading\n'
    """

    def __init__(self, unit: str, stream: IO[str] | None = None) -> None:
        self._unit, self._stream = unit, stream or sys.stderr
        self.terminal = self._stream.isatty()
        self._eta, self._shown = Eta(), time.monotonic()

    def show(self, what: str, fraction: float, count: int) -> None:
        """Shows where the work is; lines that come too fast are left out, the last one is not."""
        text = f"{what}  {fraction:.0%}  {count:,} {self._unit}  {self._eta.text(fraction)}"
        self.renew(text, last=fraction >= 1.0)

    def renew(self, text: str, *, last: bool = False) -> None:
        """Puts `text` in place of the line before it; elsewhere than a terminal, prints it."""
        now = time.monotonic()
        wait = _RENEW_SECONDS if self.terminal else _PLAIN_SECONDS
        if now - self._shown < wait and not last:
            return
        self._shown = now
        self._stream.write(f"\r{text}\x1b[K" if self.terminal else f"{text}\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._stream.write(f"\r\x1b[K{text}\n" if self.terminal else f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leaves the line that renews itself behind."""
        if self.terminal:
            self._stream.write("\n")
