"""What looks at a run while it trains: pictures of pairs, a profile, evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from shards.console import warn
from shards.errors import one_line
from tracker.models import TrackerModel
from tracker.training.best import LOSS, Judged
from tracker.training.board import Board
from tracker.training.config import TrainConfig
from tracker.training.evaluation_results import Result, ResultBoard
from tracker.training.evaluations import Evaluations, check, wait
from tracker.training.pictures import keep, pairs_sheet
from tracker.training.profile import Profiler
from tracker.training.resume import Start
from tracker.training.run_folder import Checkpoints
from tracker.training.step import PRECISIONS
from tracker.training.world import Interrupt, World

__all__ = ["Watch", "check"]


class Watch:
    """Pictures, a profile and evaluations of one run; a context manager around its loop.

    Only rank 0 looks. What it sees changes no number of the training, and what fails in looking
    does not end it.

    Parameters
    ----------
    folder : of the run, which is there when this is entered
    config : how often, and on what
    world : the ranks
    steps_per_epoch : of the run
    start, target : steps done, and at the end
    profile : steps to profile; 0: none
    found : checkpoint that the run goes on from
    checkpoints : of the run: those that will be evaluated stay, and by the figures they are judged
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        world: World,
        *,
        steps_per_epoch: int,
        start: int,
        target: int,
        checkpoints: Checkpoints,
        profile: int = 0,
        found: Start | None = None,
    ) -> None:
        self._folder, self._config, self._world = folder, config, world
        self._checkpoints = checkpoints
        self._steps_per_epoch = steps_per_epoch
        self._profiler = Profiler(
            folder, profile if world.first else 0, first=start, left=target - start,
            device=world.device,
        )  # fmt: skip
        self.evaluations = Evaluations(
            folder, config.evaluate, epochs=config.epochs, steps_per_epoch=steps_per_epoch,
            start=start, keeper=checkpoints, active=world.first,
        )  # fmt: skip
        self._stack = ExitStack()
        self._shown = ResultBoard(folder, start)
        self._found = found
        if world.first:
            checkpoints.known = self._known()

    def __enter__(self) -> Watch:
        with ExitStack() as stack:
            stack.enter_context(self._shown)
            stack.enter_context(self.evaluations)
            stack.enter_context(self._profiler)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def step(
        self,
        done: int,
        model: TrackerModel,
        inputs: Mapping[str, Any],
        board: Board | None,
        *,
        saved: bool = False,
    ) -> None:
        """Look after a step.

        Parameters
        ----------
        done : steps done
        model : itself, not in DistributedDataParallel
        inputs : arguments of the training step that was done
        board : writer of TensorBoard; None on ranks that do not write
        saved : the checkpoint after this step was written
        """
        self._profiler.step()
        every = self._config.pictures_every
        if board is not None and every and done % every == 0:
            self._look(done, model, inputs, board)
        epoch, rest = divmod(done, self._steps_per_epoch)
        if saved and not rest:
            self.evaluations.submit(epoch)
        for result in self.evaluations.poll():
            self._show(result)

    def _look(
        self, done: int, model: TrackerModel, inputs: Mapping[str, Any], board: Board
    ) -> None:
        try:
            picture = pairs_sheet(model, inputs, PRECISIONS[self._config.amp])
            keep(self._folder, done, picture, board)
        except Exception as error:  # noqa: BLE001 (a picture is not worth a run, whatever fails)
            self._tell([f"there is no picture after step {done:,}: {one_line(error)}"])

    def finish(self, interrupt: Interrupt) -> int:
        """Wait for the evaluations that are left, on all ranks; returns the signal that ended it.

        Parameters
        ----------
        interrupt : signals of this rank
        """
        return wait(self.evaluations, self._world, interrupt, self._show)

    def make_up(self, step: int) -> int:
        """Do what a finished run has left to evaluate; returns the signal that ended it, or 0.

        Parameters
        ----------
        step : of the checkpoint that the run ended with
        """
        if self._found:
            self._found.forget()
        with Interrupt() as interrupt, self._shown, self.evaluations:
            if self._world.first:
                self._tell(self._checkpoints.begin(step))  # the best so far is known from here on
            return self.finish(interrupt)

    def _known(self) -> Judged | None:
        """Values that a run has left which was killed before it recorded which is the best."""
        results = self.evaluations.results if self._config.evaluate.every else []
        if results:
            values = {one.step: one.value for one in results}
            return Judged(by=results[0].measure, higher_is_better=True, values=values)
        found = self._found
        if self._config.evaluate.every or not found or found.step % self._steps_per_epoch:
            return None
        loss = found.epoch_loss
        known = loss is not None and math.isfinite(loss)
        values = {found.step: loss} if loss is not None and known else {}
        return Judged(by=LOSS, higher_is_better=False, values=values)

    def _show(self, result: Result) -> None:
        self._shown.show(result)
        judge = self._checkpoints.judge
        self._tell(judge(result.step, result.value, result.measure, higher_is_better=True))

    def _tell(self, warnings: list[str]) -> None:
        for text in warnings:
            warn(text)
