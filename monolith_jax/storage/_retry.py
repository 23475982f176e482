"""How often a request is tried again, and how long it may say nothing."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """Bounded exponential backoff for requests to gs://.

    The wait before try n + 1 is drawn from [w / 2, w], w = min(longest_s, first_s * 2**(n - 1)):
    spread out, so that a thousand hosts that were turned away together do not come back together.
    The defaults wait 32 s in all at the most.

    Attributes:
      tries: how often a request is sent before its error is raised, at least 1.
      first_s: the longest wait before the second try, in seconds.
      longest_s: the longest wait before any try, in seconds.
      stall_s: a connection that carries nothing for so many seconds counts as cut.

    Example:
      >>> policy = RetryPolicy(first_s=1.0, longest_s=3.0)
      >>> [round(policy.wait_s(n, spread=1.0), 1) for n in (1, 2, 3, 4)]
      [1.0, 2.0, 3.0, 3.0]
    """

    tries: int = 8
    first_s: float = 0.25
    longest_s: float = 32.0
    stall_s: float = 60.0

    def __post_init__(self) -> None:
        if self.tries < 1 or min(self.first_s, self.longest_s) < 0 or self.stall_s <= 0:
            raise ValueError(f"{self}: tries >= 1, waits >= 0 and stall_s > 0 are needed")

    def wait_s(self, failed: int, spread: float | None = None) -> float:
        """Returns the seconds to wait after the `failed`-th failed try (1, 2, ...).

        Args:
          failed: how many tries have failed.
          spread: where in [w / 2, w], from 0 to 1; drawn at random if None.
        """
        longest = min(self.longest_s, self.first_s * 2.0 ** (failed - 1))
        return longest * (0.5 + 0.5 * (random.random() if spread is None else spread))


_policy = RetryPolicy()


def retry_policy() -> RetryPolicy:
    """Returns the policy that requests follow now."""
    return _policy


def set_retry_policy(policy: RetryPolicy) -> RetryPolicy:
    """Sets the policy of all requests that start from now on; returns the one before.

    Example:
      >>> before = set_retry_policy(RetryPolicy(tries=12))
      >>> set_retry_policy(before).tries
      12
    """
    global _policy
    before, _policy = _policy, policy
    return before
