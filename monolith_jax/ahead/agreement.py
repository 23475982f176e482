"""What several processes agree on, so that all of them run one step: a saved one, or none.

Each may see another folder, and may be refused what the others load. Programs that differ between
the hosts of a pod wait for each other for ever.
"""

from typing import Any, TypeVar

from monolith_jax import distributed

T = TypeVar("T")

_CHANNEL = "saved steps"


def common(files: dict[str, T], told: list[str]) -> tuple[dict[str, T], list[str]]:
    """Returns the files that every process has, as process 0 orders them, and what to tell.

    Args:
      files: this process's, by what tells one from another.
      told: its lines about those that are not taken.

    Returns:
      This process's entries of the files, and its lines, followed by those of the others that
      differ, with their numbers.

    Example:
      >>> common({"b2c9": "a.step"}, [])  # one process
      ({'b2c9': 'a.step'}, [])
    """
    everyones = distributed.from_all([list(files), told], _CHANNEL)
    order, _ = everyones[0]
    kept = [key for key in order if all(key in theirs for theirs, _ in everyones)]
    others = [
        f"process {i}: {line}"
        for i, (_, lines) in enumerate(everyones)
        for line in lines
        if line not in told
    ]
    return {key: files[key] for key in kept}, told + others


def refusal(found: str, line: str) -> str:
    """Returns why some process compiles the step; empty: all have found the same one.

    Args:
      found: what tells this process's step from others; empty: it has none.
      line: why it has none, or which it has.

    Example:
      >>> refusal("b2c9", "took a.step"), refusal("", "a.step is not taken: damaged")
      ('', 'a.step is not taken: damaged')
    """
    everyones: list[Any] = distributed.from_all([found, line], _CHANNEL)
    if not any(theirs for theirs, _ in everyones):
        return line
    if len({theirs for theirs, _ in everyones}) == 1:
        return ""
    without = [(i, said) for i, (theirs, said) in enumerate(everyones) if not theirs]
    reasons = without or [(i, said) for i, (_, said) in enumerate(everyones)]
    return "; ".join(f"process {i}: {said}" for i, said in reasons) + "; all do alike"
