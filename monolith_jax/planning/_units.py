"""Bytes, counts and times as people read them: in the unit that they fill."""

from collections.abc import Sequence


def held(value: float, digits: int = 2) -> str:
    """Returns bytes of memory, in powers of 1,024.

    Example:
      >>> [held(n) for n in (0, 4_940, 1 << 21, 101_000_000_000)]
      ['0', '4.82 KiB', '2.00 MiB', '94.06 GiB']
    """
    return in_units(value, 1024, ("KiB", "MiB", "GiB"), digits)


def moved(value: float) -> str:
    """Returns bytes of traffic, in powers of ten, as the rates of memories and links are.

    Example:
      >>> [moved(n) for n in (0, 300, 4_940, 999_990, 12_340_000_000)]
      ['0', '0.3 kB', '4.9 kB', '1.0 MB', '12.3 GB']
    """
    return in_units(value, 1000, ("kB", "MB", "GB"), 1)


def lasting(seconds: float) -> str:
    """Returns a time in the unit that it fills.

    Example:
      >>> [lasting(seconds) for seconds in (0, 0.000_000_51, 0.001_234, 2)]
      ['0', '0.51 us', '1.23 ms', '2.00 s']
    """
    return in_units(seconds * 1e9, 1000, ("us", "ms", "s"), 2)


def in_units(value: float, step: int, units: Sequence[str], digits: int) -> str:
    """Returns a value in the first of the units in which it is below `step`, else in the last.

    Args:
      value: any number.
      step: from a unit to the next, and from 1 to the first.
      units: the smallest first.
      digits: behind the point.
    """
    if not value:
        return "0"
    value /= step
    for unit in units[:-1]:
        if abs(round(value, digits)) < step:
            return f"{value:,.{digits}f} {unit}"
        value /= step
    return f"{value:,.{digits}f} {units[-1]}"
