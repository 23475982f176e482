"""The train step compiled before the run, on another machine, and taken by the run as it is.

`monolith-jax plan KEY --topology v5e:16x16 --save DIR` compiles the step for devices that are not
there and keeps it in `DIR`; `monolith-jax train KEY --compiled DIR` on those devices takes it, or
says field by field what differs and compiles its own. A file holds the compiler's output (machine
code) and JSON, no pickle; it is complete or not there.

Machine code is trusted as a program is: take files only from who may run programs as you.
"""

from monolith_jax.ahead.save import save
from monolith_jax.ahead.steps import SavedSteps

__all__ = ["SavedSteps", "save"]
