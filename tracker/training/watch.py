"""What looks at a run while it trains: pictures of pairs, a profile, evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tracker.models import TrackerModel
from tracker.training.config import TrainConfig
from tracker.training.evaluation_results import Result, show
from tracker.training.evaluations import Evaluations, Keeper, wait
from tracker.training.pictures import Board, keep, pairs_sheet
from tracker.training.profile import Profiler
from tracker.training.step import PRECISIONS
from tracker.training.world import Interrupt, World

__all__ = ["Watch"]


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
    keeper : of the checkpoints, so that those stay that will be evaluated
    take : called with each new result of an evaluation, while its checkpoint is there
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
        profile: int = 0,
        keeper: Keeper | None = None,
        take: Callable[[Result], None] = lambda _: None,
    ) -> None:
        self._folder, self._config, self._world, self._take = folder, config, world, take
        self._steps_per_epoch = steps_per_epoch
        self._profiler = Profiler(
            folder, profile if world.first else 0, first=start, left=target - start,
            device=world.device,
        )  # fmt: skip
        self.evaluations = Evaluations(
            folder, config.evaluate, epochs=config.epochs, steps_per_epoch=steps_per_epoch,
            start=start, keeper=keeper, active=world.first,
        )  # fmt: skip
        self._stack = ExitStack()

    def __enter__(self) -> Watch:
        with ExitStack() as stack:
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
        self, done: int, model: TrackerModel, inputs: Mapping[str, Any], board: Board | None
    ) -> None:
        """Look after a step.

        Parameters
        ----------
        done : steps done
        model : itself, not in DistributedDataParallel
        inputs : arguments of the training step that was done
        board : writer of TensorBoard; None on ranks that do not write
        """
        self._profiler.step()
        every = self._config.pictures_every
        if board is not None and every and done % every == 0:
            keep(
                self._folder, done, pairs_sheet(model, inputs, PRECISIONS[self._config.amp]), board
            )
        for result in self.evaluations.poll():
            self._show(result)

    def saved(self, done: int) -> None:
        """Note that the checkpoint after so many steps was written."""
        epoch, rest = divmod(done, self._steps_per_epoch)
        if not rest:
            self.evaluations.submit(epoch)

    def finish(self, interrupt: Interrupt) -> int:
        """Wait for the evaluations that are left, on all ranks; returns the signal that ended it.

        Parameters
        ----------
        interrupt : signals of this rank
        """
        return wait(self.evaluations, self._world, interrupt, self._show)

    def _show(self, result: Result) -> None:
        show(result, self._folder)
        self._take(result)
