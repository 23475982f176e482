"""How many different rows so many ids are."""

import math


def distinct(rows: int, draws: float) -> float:
    """Returns the distinct rows to expect of so many even draws: `V (1 - (1 - 1/V)^n)`.

    Example:
      >>> distinct(10, 0), round(distinct(10, 10), 2), distinct(1, 5)
      (0.0, 6.51, 1.0)
    """
    if rows == 1:
        return min(1.0, draws)
    return -rows * math.expm1(draws * math.log1p(-1.0 / rows))
