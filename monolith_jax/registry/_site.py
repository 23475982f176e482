"""Where a class was registered, and whether a second time is a re-execution or a duplicate."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

_HERE = f"{Path(__file__).parent}{os.sep}"


@dataclass(frozen=True)
class Site:
    """The place of a registration.

    Attributes:
      file: source file, or the interpreter's name for what was typed in.
      line: line of the decorator or the call.
      module: the module whose code was running.
      code: that module's outermost running code object. Executing a module, a notebook's cell or
        a typed statement compiles or loads it anew, so that two registrations with one code
        object come from one execution, and with two code objects from two.
      top_level: `code` is the module's body, not a function.
    """

    file: str
    line: int
    module: str
    code: CodeType
    top_level: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def repeats(self, earlier: "Site") -> bool:
        """Returns whether this is `earlier`'s module executed again: a reload, a cell run twice."""
        return (
            self.top_level
            and earlier.top_level
            and self.module == earlier.module
            and self.code is not earlier.code
        )


def find_site(cls: type) -> Site:
    """Returns the site of a registration of `cls` that is going on now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    # A library's own decorator may lie between the class and us: the class's module comes first.
    caller, start = frame, frame
    while start is not None and _module(start) != cls.__module__:
        start = start.f_back
    start = start or caller
    assert start is not None, "something outside of this package calls it"
    outer = start
    while outer.f_back is not None and _module(outer.f_back) == _module(start):
        outer = outer.f_back
    return Site(
        file=start.f_code.co_filename,
        line=start.f_lineno,
        module=_module(start),
        code=outer.f_code,
        top_level=outer.f_locals is outer.f_globals,
    )


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
