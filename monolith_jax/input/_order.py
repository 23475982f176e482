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
        """`window` is 1 or more; `num_examples` or more is a full shuffle."""
        self.num_examples, self.seed = num_examples, seed
        self.window = min(window, num_examples)
        self.num_windows = -(-num_examples // self.window)
        self._permutation = functools.lru_cache(maxsize=_CACHED)(self._draw)

    def places(self, epoch: int, start: int, stop: int) -> list[tuple[int, np.ndarray]]:
        """Returns which examples stand at the places start..stop (exclusive) of an epoch.

        Returns:
          For each window that the places lie in: its number, and the examples in order, int64,
          counted from the first of the window.
        """
        parts = []
        for w in range(start // self.window, -(-stop // self.window)):
            base = w * self.window
            parts.append((w, self._permutation(epoch, w)[max(start - base, 0) : stop - base]))
        return parts

    def span(self, w: int) -> tuple[int, int]:
        """Returns the first example of window w, and one past its last."""
        return w * self.window, min((w + 1) * self.window, self.num_examples)

    def _draw(self, epoch: int, w: int) -> np.ndarray:
        start, stop = self.span(w)
        bits = np.random.Philox(np.random.SeedSequence([self.seed, epoch, w]))
        return np.argsort(bits.random_raw(stop - start), kind="stable")
