"""The order of the examples: which example stands at which place of an epoch."""

import functools

import numpy as np

_CACHED = 4


class Order:
    """Permutes consecutive windows of `window` examples, anew in each epoch.

    The permutation of window w in epoch e sorts the 64-bit numbers that the Philox4x64-10 generator
    gives, keyed by `SeedSequence([seed, e, w])`; equal numbers keep their order. Both are frozen by
    numpy's policy (NEP 19: bit generators and SeedSequence do not change their streams, whereas
    `Generator.permutation` may), so that a run resumes exactly under another version of numpy.
    """

    def __init__(self, num_examples: int, seed: int, window: int) -> None:
        """`window` 0 or 1 keeps the order, `num_examples` or more is a full shuffle."""
        self.num_examples, self.seed = num_examples, seed
        self.window = min(window, num_examples)
        self._permutation = functools.lru_cache(maxsize=_CACHED)(self._draw)

    def examples(self, epoch: int, start: int, stop: int) -> np.ndarray | slice:
        """Returns which examples stand at the places start..stop (exclusive) of an epoch.

        Returns:
          Indices into the examples in the order of the files, int64 [stop - start]; or a slice, if
          the order is kept.
        """
        if self.window <= 1:
            return slice(start, stop)
        parts = []
        for w in range(start // self.window, -(-stop // self.window)):
            base = w * self.window
            part = self._permutation(epoch, w)[max(start - base, 0) : stop - base]
            parts.append(part + base)
        return np.concatenate(parts)

    def _draw(self, epoch: int, w: int) -> np.ndarray:
        size = min(self.window, self.num_examples - w * self.window)
        bits = np.random.Philox(np.random.SeedSequence([self.seed, epoch, w]))
        return np.argsort(bits.random_raw(size), kind="stable")
