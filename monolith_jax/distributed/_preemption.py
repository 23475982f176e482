"""A signal to one process stops all of them, at one step."""

import jax

from monolith_jax.distributed import _service
from monolith_jax.distributed._exchange import is_primary
from monolith_jax.preemption import Preemption

LAG = 4
"""Polls between the decision to stop and the stop; hosts are at most three polls apart."""


class AgreedPreemption(Preemption):
    """A flag that is raised in all processes at the same poll, once any of them got a signal.

    A process that got a signal says so; process 0 hears it at its next poll, number t, and
    announces that all stop at poll t + LAG. Processes poll `requested` at the same places of the
    same program, and what lies between two polls waits for the step before the last, so no two are
    more than three polls apart: everyone hears the announcement before it comes to that poll.

    Args:
      local: this process's own flag.
    """

    def __init__(self, local: Preemption) -> None:
        super().__init__()
        self._local = local
        self._polls = 0
        self._stop: int | None = None
        self._said = False
        self._prefix = _service.key("preemption")

    @property
    def requested(self) -> bool:
        """Whether all processes stop here; every call counts as a poll."""
        self._polls += 1
        client = _service.client()
        if self._local.requested and not self._said:
            client.key_value_set(f"{self._prefix}/asked", "1", allow_overwrite=True)
            self._said = True
        if self._stop is None:
            found = _service.try_get(f"{self._prefix}/stop")
            if found is not None:
                self._stop = int(found)
            elif is_primary() and _service.try_get(f"{self._prefix}/asked") is not None:
                self._stop = self._polls + LAG
                client.key_value_set(f"{self._prefix}/stop", str(self._stop))
        return self._stop is not None and self._polls >= self._stop


def agreed(preemption: Preemption) -> Preemption:
    """Returns the flag that all processes see alike; itself where there is one process."""
    return preemption if jax.process_count() == 1 else AgreedPreemption(preemption)
