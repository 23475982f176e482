"""Which of our arrays a checkpoint has, which not, and what else is in it."""

import difflib
from collections.abc import Iterable, Mapping

import numpy as np

from monolith_jax.checkpoint.tf._bundle import TensorInfo
from monolith_jax.checkpoint.tf.names._entries import Entry
from monolith_jax.checkpoint.tf.names._map import NameMap
from monolith_jax.checkpoint.tf.names._report import Conflict, Found, Left, Missing, Report

_MOST_SUGGESTED = 20  # spelling takes milliseconds among thousands of names


def match(wanted: Iterable[Entry], held: Mapping[str, TensorInfo], names: NameMap) -> Report:
    """Compares what we want with what a checkpoint holds.

    Args:
      wanted: from `entries`.
      held: `Bundle.entries`.
      names: says what is ignored, and whether averages count.

    Example:
      >>> from monolith_jax.checkpoint.tf.names import Variable, entries
      >>> held = {"emb/user": TensorInfo(np.dtype("f4"), (10, 4), (), 160)}
      >>> report = match(entries([Variable("tables/user", (10, 4))], NameMap()), held, NameMap())
      >>> report.missing[0].near
      ('emb/user',)
    """
    wanted = list(wanted)
    found, conflicts, absent = [], [], []
    for entry in wanted:
        name = entry.average if entry.average in held else entry.tf
        if name not in held:
            absent.append(entry)
            continue
        what = _disagreement(entry, held[name])
        if what:
            conflicts.append(Conflict(entry, name, what))
        else:
            found.append(Found(entry, name))
    used = {name for e in wanted for name in (e.tf, e.average)}
    free = {name: held[name] for name in held if name not in used}
    values = {e.tf: e.variable for e in wanted if e.kind == "value"}
    left = [
        Left(name, info.shape, str(info.dtype), _why(name, values, names))
        for name, info in free.items()
    ]
    unused = tuple(
        rule.ours
        for rule in names.rules
        if not any(rule.name(e.variable) is not None for e in wanted if e.kind == "value")
    )
    missing = _missing(absent, {e.name: free[e.name] for e in left if not e.ignored})
    return Report(tuple(found), missing, tuple(conflicts), tuple(left), unused)


def _disagreement(entry: Entry, info: TensorInfo) -> str:
    if info.shape != entry.shape:
        return f"shape {info.shape}, ours {entry.shape}"
    if info.dtype.hasobject or not np.can_cast(info.dtype, entry.dtype, "safe"):
        return f"dtype {info.dtype}, ours {entry.dtype}"
    return ""


def _missing(absent: list[Entry], free: Mapping[str, TensorInfo]) -> tuple[Missing, ...]:
    """Returns what is missing, with suggestions; slots of a missing variable need none."""
    without = {entry.variable for entry in absent if entry.kind == "value"}
    missing = []
    for i, entry in enumerate(absent):
        follows = entry.kind == "slot" and entry.variable in without
        near = () if follows or i >= _MOST_SUGGESTED else _near(entry, free)
        missing.append(Missing(entry, near, follows))
    return tuple(missing)


def _near(entry: Entry, free: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """Returns what it may be called instead: names of equal shape, the likest first."""
    alike = [
        name
        for name, info in free.items()
        if info.shape == entry.shape
        and np.can_cast(info.dtype, entry.dtype, "safe")
        and not (entry.kind == "value" and name.rpartition("/")[0] in free)  # a slot of another
    ]
    # Among equal shapes any resemblance is worth a look, unless there are many of them.
    cutoff = 0.0 if len(alike) <= 3 and entry.shape else 0.4
    close = difflib.get_close_matches(entry.tf, alike, n=3, cutoff=cutoff)
    return tuple(close or difflib.get_close_matches(entry.tf, free, n=3, cutoff=0.7))


def _why(name: str, values: Mapping[str, str], names: NameMap) -> str:
    """Returns what a variable of TF that is not asked for seems to be."""
    if names.ignores(name):
        return "ignored"
    base, _, last = name.rpartition("/")
    if last == names.moving_averages.name:
        return f"moving average of {base}"
    if base in values:
        return f"beside {values[base]}: a slot of another optimizer?"
    return ""
