"""Errors that a user can act on.

Every error that comes from what a user gave (a name, a path, a file's bytes, a config value)
derives from `UserError`: the command line prints it as one line and exits with 2. Anything else is
a defect of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad usage or bad input; the message is one clear line that names what is at fault."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A config field that does not exist, or a value that it cannot take."""


class DataError(UserError, ValueError):
    """Data that is missing, damaged, or not what the schema says.

    The message names the file, and the byte offset if it is known.
    """


class CheckpointError(UserError, ValueError):
    """A checkpoint that is missing, incomplete, or belongs to another model."""


class DivergedError(UserError, ArithmeticError):
    """Training produced a value that is not finite; the message names the last good checkpoint."""

    exit_code = 3


def nearest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """Returns up to `n` of `choices` that resemble `name`, best first, ignoring case.

    Example:
      >>> nearest("movielens.DeepFm", ["movielens.DeepFM", "criteo.DLRM"])
      ['movielens.DeepFM']
    """
    by_lower = {choice.lower(): choice for choice in choices}
    return [by_lower[m] for m in difflib.get_close_matches(name.lower(), by_lower, n=n, cutoff=0.5)]


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns the tail of an error message: the near misses of `name`, or all the valid choices.

    Example:
      >>> did_you_mean("batchsize", ["batch_size", "seed"])
      'did you mean batch_size?'
      >>> did_you_mean("zzz", ["batch_size", "seed"])
      'valid choices: batch_size, seed'
    """
    choices = sorted(choices)
    close = nearest(name, choices)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"valid choices: {', '.join(choices) or '(none)'}"
