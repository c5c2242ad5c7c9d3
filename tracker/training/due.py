"""When to write a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Due"]

RETRY_S = 60.0


class Due:
    """When to write a checkpoint.

    Parameters
    ----------
    every : steps between two; 0: none for that reason
    minutes : age of the last one at which the next is wished for; 0: never
    steps_per_epoch : one is due at the end of every epoch
    clock : seconds
    """

    WISH = 1  # smaller than the number of a signal that ends a run

    def __init__(
        self,
        every: int,
        minutes: float,
        steps_per_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every, self.age_s, self.steps_per_epoch = every, minutes * 60, steps_per_epoch
        self._clock, self._last = clock, clock()
        self._again: float | None = None

    def wish(self) -> int:
        """`WISH` if the last checkpoint is old, or one that failed is to be tried again.

        All ranks must agree before they act on it.
        """
        now = self._clock()
        old = self.age_s > 0 and now - self._last >= self.age_s
        if self._again is not None:
            return self.WISH if now >= self._again else 0
        return self.WISH if old else 0

    def after(self, step: int) -> bool:
        """Whether one is due after so many steps, whatever the time."""
        return step % self.steps_per_epoch == 0 or (self.every > 0 and step % self.every == 0)

    def written(self) -> None:
        """Start to wait for the next."""
        self._last, self._again = self._clock(), None

    def failed(self) -> None:
        """Wish for another attempt in `RETRY_S` seconds."""
        self._again = self._clock() + RETRY_S
