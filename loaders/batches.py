"""Begin batches, and begin them again without pairs whose pictures are damaged.

All that may read, and so may take long, happens in `Batches.start` and `Batches.mend`: a loader
calls them in a thread of their own, and waits for that with a limit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch

from loaders.faults import Faults
from loaders.plan import MAX_SUBSTITUTES
from loaders.work import Backend, Work
from loaders.works import NO_ATTEMPTS, Attempts, Works
from shards.errors import BadSample

__all__ = ["Batches", "Begun"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Begun:
    """A batch that is planned, and that a backend has begun or refused.

    Attributes
    ----------
    position : epoch, and samples of it before the batch
    attempts : by position in the batch, which substitute stands there
    handle : the backend's; None before it began, or if it refused
    error : why it refused
    """

    position: tuple[int, int]
    attempts: Attempts
    work: Work
    handle: Any = None
    error: BadSample | None = None


class Batches:
    """See the module.

    Parameters
    ----------
    works : plans batches
    backend : makes them
    faults : of the loader
    """

    def __init__(self, works: Works, backend: Backend, faults: Faults) -> None:
        self._works, self._backend, self._faults = works, backend, faults
        self._lock = threading.Lock()
        self._announced: deque[Begun] = deque()  # and not started yet

    def plan(self, position: tuple[int, int], attempts: Attempts = NO_ATTEMPTS) -> Begun:
        """Plan a batch without samples known to be damaged, and tell the storages.

        Batches are started in the order in which they were planned; one that is passed over will
        not be read any more.
        """
        planned = self._planned(position, attempts)
        with self._lock:
            self._announced.append(planned)
        return planned

    def _planned(self, position: tuple[int, int], attempts: Attempts) -> Begun:
        while True:
            work = self._works.make(*position, attempts)
            known = self._faults.known_in(work)
            if not known:
                self._works.announce(work)
                return Begun(position=position, attempts=attempts, work=work)
            attempts = _next(attempts, known)
            if max(attempts.values()) > MAX_SUBSTITUTES:
                self._faults.check(attempts, len(work))

    def start(self, planned: Begun) -> Begun:
        """Hand a planned batch to the backend."""
        with self._lock:
            while planned in self._announced:
                first = self._announced.popleft()
                if first is not planned:
                    self._works.forget(first.work)
        try:
            return replace(planned, handle=self._backend.start(planned.work))
        except BadSample as error:
            return replace(planned, error=error)

    def mend(self, begun: Begun, error: BadSample) -> Begun:
        """Begin a batch again, without the pair that has a damaged picture and others like it.

        Raises
        ------
        TooManyBadSamples : if the budget is used up
        """
        self._faults.note(error, begun.work)
        bad = {error.pair}
        if error.stored:  # other pictures may be damaged alike, and are found all at once
            bad |= self._faults.survey(begun.work)
        attempts = _next(begun.attempts, bad)
        self._faults.check(attempts, len(begun.work))
        self._works.forget(begun.work)  # what was not read of it is announced again
        return self.start(self._planned(begun.position, attempts))

    def finish(self, begun: Begun, timeout_s: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Template and search pixels of a batch; the errors are the backend's."""
        if begun.error is not None:
            raise begun.error
        return self._backend.finish(begun.handle, timeout_s)

    def now(self, planned: Begun, timeout_s: float) -> tuple[Work, torch.Tensor, torch.Tensor]:
        """Make a planned batch in this thread, as a loader would hand it over."""
        begun = self.start(planned)
        while True:
            try:
                return begun.work, *self.finish(begun, timeout_s)
            except BadSample as error:
                if not self._faults.fraction:
                    raise
                begun = self.mend(begun, error)


def _next(attempts: Attempts, bad: Collection[int]) -> Attempts:
    """Attempts with the next substitute for the pairs at these positions."""
    return {**attempts, **{at: attempts.get(at, 0) + 1 for at in sorted(bad)}}
