"""Patterns over paths, with one meaning for gs:// and local files."""

import re

_MAGIC = re.compile(r"[*?\[]")


def has_magic(pattern: str) -> bool:
    """Returns whether a path has wildcards in it.

    Example:
      >>> has_magic("data/2020*/part"), has_magic("data/part")
      (True, False)
    """
    return _MAGIC.search(pattern) is not None


def fixed_prefix(pattern: str) -> str:
    """Returns what every match begins with: the text before the first wildcard.

    Example:
      >>> fixed_prefix("data/2020*/part")
      'data/2020'
    """
    magic = _MAGIC.search(pattern)
    return pattern[: magic.start()] if magic else pattern


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Returns the regular expression of a pattern.

    `*` and `?` stand for characters of one part of a path, `[ab]`, `[a-z]` and `[!a]` for one of a
    set, and a part that is `**` for any number of parts, none included. So gsutil reads them too.

    Example:
      >>> bool(compile_glob("data/**/part*").fullmatch("data/20200501/00/part-1"))
      True
      >>> bool(compile_glob("data/*/part*").fullmatch("data/20200501/00/part-1"))
      False
    """
    parts = pattern.split("/")
    out = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            out.append(r"(?:[^/]+/)*[^/]+" if last else r"(?:[^/]+/)*")
        else:
            out.append(_part(part) + ("" if last else "/"))
    return re.compile("".join(out), re.DOTALL)


def _part(part: str) -> str:
    """Returns the regular expression of one part of a path."""
    out, at = [], 0
    while at < len(part):
        char = part[at]
        at += 1
        # A "]" right after "[" or "[!" is a member of the set, not its end.
        end = part.find("]", at + 1 + (part[at : at + 1] == "!")) if char == "[" else -1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif end > 0:
            out.append(_set(part[at:end]))
            at = end + 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _set(body: str) -> str:
    """Returns the regular expression of what stands in [...]; an impossible range: of nothing."""
    negated = body.startswith("!")
    escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", body[negated:])
    try:
        re.compile(f"[{escaped}]")
    except re.error:  # [z-a]
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{escaped}]"
