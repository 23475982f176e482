"""Pieces of what the messages say."""


def numbers(first: int, last: int) -> str:
    """Returns the numbers from `first` to `last`, as a sentence has them.

    Example:
      >>> numbers(0, 3), numbers(1, 1)
      ('0 to 3', '1')
    """
    return f"{first}" if first == last else f"{first} to {last}"
