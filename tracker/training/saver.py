"""Writes the checkpoints of a run while it goes on, and says loudly when the disk takes none."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress

from shards.errors import SiamstreamError
from tracker.training.best import LOSS
from tracker.training.checkpoint import NotWritten
from tracker.training.due import RETRY_S, Due
from tracker.training.resume import Start, State
from tracker.training.run_folder import Checkpoints

__all__ = ["Saver"]


class Saver:
    """Writes checkpoints; every rank has one and calls it alike, rank 0 writes.

    A checkpoint that the disk does not take does not end the run: training goes on, and another is
    tried soon. Only the last one must be written.

    Parameters
    ----------
    state : what checkpoints hold
    checkpoints : of the run's folder
    due : told what was written
    start : checkpoint that the run goes on from
    warn : told, on rank 0, what went wrong

    Attributes
    ----------
    step : steps of the last whole checkpoint; 0: there is none
    """

    def __init__(
        self,
        state: State,
        checkpoints: Checkpoints,
        due: Due,
        start: Start | None,
        warn: Callable[[str], None],
    ) -> None:
        self.step = start.step if start else 0
        self._path = start.path if start else None
        self._state, self._checkpoints, self._due, self._warn = state, checkpoints, due, warn
        self._world = state.world
        if self._world.first:
            self._tell(checkpoints.begin(self.step))

    def save(self, step: int, *, last: bool = False) -> bool:
        """Write the checkpoint after `step` steps; returns whether it is written.

        Parameters
        ----------
        step : steps done
        last : the run ends after it

        Raises
        ------
        NotWritten : if it is the last and could not be written, on every rank
        """
        content = self._state.collect(step)

        def attempt() -> NotWritten | None:
            try:
                self._tell(self._checkpoints.write(content, step))
            except NotWritten as error:
                return error
            return None

        failed: NotWritten | None = self._world.agree(attempt)
        if failed is None:
            self.step, self._path = step, self._checkpoints.path(step)
            self._due.written()
            return True
        if last:
            raise failed.because(
                f"the steps after {self.step:,} are lost: {self._last()}; {failed.advice()} and "
                "start the same command again, it goes on from there"
            ) from failed
        self._due.failed()
        if self._world.first:
            self._warn(
                f"{failed}; {self._last()}; {failed.advice()}: training goes on, and tries again "
                f"in {RETRY_S:.0f} s"
            )
        return False

    def refuse_within_a_step(self, number: int) -> None:
        """Refuse to end by a signal while a batch is waited for, if there are other ranks.

        Raises
        ------
        SiamstreamError : they are within the step, and of that there is no checkpoint
        """
        if self._world.size > 1:
            raise SiamstreamError(
                f"{signal.Signals(number).name} came while this process waited for data that do "
                f"not come, so no checkpoint could be written; the last is of step {self.step:,}: "
                "start the same command again to go on from there"
            )

    def judge(self, step: int, loss: float | None) -> None:
        """Judge the checkpoint of a step by the training loss of its epoch; None: not known."""
        if self._world.first and loss is not None:
            self._tell(self._checkpoints.judge(step, loss, LOSS))

    def _tell(self, warnings: list[str]) -> None:
        for text in warnings:
            self._warn(text)

    def _last(self) -> str:
        """The last whole checkpoint, and how old it is."""
        if self._path is None:
            return "there is no whole checkpoint yet"
        age = ""
        with suppress(OSError):
            age = f", {_age(time.time() - self._path.stat().st_mtime)} old"
        return f"the last whole checkpoint is {self._path} of step {self.step:,}{age}"


def _age(seconds: float) -> str:
    """As people say it."""
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
