"""Static sizes for what varies from batch to batch."""

import math

STEPS_PER_OCTAVE = 4
COARSE, FINE = 128, 8


def capacity(needed: int, *, least: int, most: int) -> int:
    """Returns the size that an array of `needed` entries is padded to.

    Sizes are the ladder `2^(k/4)`, rounded up to multiples of 128 (of 8 below 1,024, where many
    small buckets lie side by side), between `least` and `most`: a batch wastes a tenth on average,
    and batches that resemble each other share one compiled program. The size is a function of this
    batch alone, never of earlier ones: a resumed run compiles the same programs and computes the
    same bits.

    Args:
      needed: entries, at most `most`.
      least: no smaller size than this is worth a program of its own.
      most: entries that a batch can have at most; the top of the ladder.

    Example:
      >>> [capacity(n, least=1024, most=65_536) for n in (0, 1025, 26_060, 65_536)]
      [1024, 1280, 27648, 65536]
      >>> capacity(150, least=8, most=26_624)
      152
      >>> capacity(300, least=1024, most=943)
      943
    """
    wanted = max(needed, least)
    if wanted >= most:
        return most
    rung = math.ceil(round(STEPS_PER_OCTAVE * math.log2(wanted), 9))
    size = round(2 ** (rung / STEPS_PER_OCTAVE))
    multiple = COARSE if size >= 1024 else FINE
    size = -(-max(size, wanted) // multiple) * multiple
    return min(size, most)
