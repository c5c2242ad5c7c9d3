"""Evaluations beside a training: ``python -m tracker eval`` of the checkpoints of epochs.

One process at a time, of low priority, started by rank 0; the others wait in a queue, and their
checkpoints stay as long. Results are lines of ``<run>/evaluations.jsonl``. What a run that was
stopped or killed has not evaluated is evaluated when it goes on.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

import click

from shards.console import warn
from shards.errors import ConfigError, DataError
from tracker.follow import TrackingError, torch_device
from tracker.metrics import DEFAULT_CONVENTION
from tracker.sequences import SPLITS, read_sequences
from tracker.training.config import EvaluateConfig
from tracker.training.evaluation_results import (
    FIGURES,
    Result,
    append_results,
    read_results,
)
from tracker.training.log import keep_until
from tracker.training.world import Interrupt, World

__all__ = ["Evaluations", "Keeper", "check", "command_of", "root_of", "wait"]

NICE = 10
LAST_LINES = 5  # of a failed evaluation that are shown
END_S = 5.0  # until a process that was asked to end is killed
KILL_S = 1.0  # until a killed process that stays is left behind
WAIT_S = 0.5
BUSY = 1  # smaller than the number of a signal that ends a run
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def check(config: EvaluateConfig) -> None:
    """Refuse what could only fail after the first epoch.

    Parameters
    ----------
    config : whether, and on what

    Raises
    ------
    ConfigError : if the data set is not there, is malformed, has no public ground truth, or there
        is no such device
    """
    if not config.every:
        return
    rule = DEFAULT_CONVENTION[config.dataset]
    try:
        torch_device(config.device)
        sequences = read_sequences(config.dataset, root_of(config), config.split, rule)
    except (TrackingError, DataError) as error:
        raise ConfigError(f"train.evaluate: {error}") from error
    except OSError as error:
        raise ConfigError(
            f"train.evaluate: {error.filename or root_of(config)}: cannot be read: {error.strerror}"
        ) from error
    if not any(one.scored for one in sequences):
        raise ConfigError(
            f"train.evaluate: the ground truth of {config.dataset} {sequences.split} is not "
            "public, so there would be no figures; give another train.evaluate.split or dataset"
        )


def root_of(config: EvaluateConfig) -> Path:
    """Folder of the data set to evaluate on."""
    if config.root is not None:
        return Path(config.root)
    return Path(os.environ.get("SIAMSTREAM_RAW") or "data/raw") / config.dataset


class Keeper(Protocol):
    """What is needed of the checkpoints of a run."""

    def hold(self, step: int, /) -> None:
        """Keep the checkpoint after so many steps."""

    def release(self, step: int, /) -> list[str]:
        """Hold it no longer; returns warnings."""


class Evaluations:
    """Queue of evaluations of one run, and the process of the one that goes on; a context manager.

    When it is entered, kept checkpoints without a result join the queue. When it is left, the
    process is ended; what it has done is kept for the next start. What fails here never ends the
    training.

    Parameters
    ----------
    folder : of the run, which is there when this is entered
    config : whether, how often, and on what; ``every`` 0: nothing is done
    epochs : of the whole training; the last is always evaluated
    steps_per_epoch : of the run
    start : steps done; results of later ones, which will be done again, are dropped
    keeper : of the checkpoints; None: all stay
    active : False for ranks that do not write
    """

    def __init__(
        self,
        folder: Path,
        config: EvaluateConfig,
        *,
        epochs: int,
        steps_per_epoch: int,
        start: int,
        keeper: Keeper | None = None,
        active: bool = True,
    ) -> None:
        self._run, self._folder, self._config = folder, folder / "eval", config
        self._epochs, self._steps_per_epoch, self._start = epochs, steps_per_epoch, start
        self._keeper, self._active = keeper, active and config.every > 0
        self._split = config.split or SPLITS[config.dataset][0]
        self._path = folder / "evaluations.jsonl"
        self._queue: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._epoch, self._began = 0, 0.0  # of the process
        self._told_late = False
        self._new: list[Result] = []

    def __enter__(self) -> Evaluations:
        if self._active:
            self._resume()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._settle()
        self.stop()

    @property
    def left(self) -> int:
        """How many evaluations go on or wait."""
        return len(self._queue) + (self._process is not None)

    @property
    def results(self) -> list[Result]:
        """Those that are recorded, of this data set and split, by epoch."""
        mine = (self._config.dataset, self._split)
        found = [one for one in read_results(self._path) if (one.dataset, one.split) == mine]
        return sorted(found, key=lambda one: one.epoch)

    def wanted(self, epoch: int) -> bool:
        """Whether the checkpoint after so many epochs is to be evaluated."""
        return self._active and (epoch % self._config.every == 0 or epoch == self._epochs)

    def submit(self, epoch: int) -> None:
        """Put the checkpoint after an epoch, just written, into the queue if that is wanted."""
        if not self.wanted(epoch):
            return
        self._hold(epoch)
        self._queue.append(epoch)
        self._begin_next()
        if len(self._queue) > 1 and not self._told_late:
            self._told_late = True
            warn(
                f"{len(self._queue)} checkpoints wait for their evaluation, which takes longer "
                "than the epochs between two; they are kept until then"
            )

    def poll(self) -> list[Result]:
        """Look whether an evaluation has ended, and begin the next; never waits.

        Returns
        -------
        New results. They are recorded, and their checkpoints released, at the next call or when
        this is left: a run that is killed before it has dealt with one gets it again.
        """
        self._settle()
        if self._process is not None and self._process.poll() is not None:
            self._end(self._process.returncode)
        self._end_if_late()
        if self._process is None and self._queue:
            self._begin_next()
        return list(self._new)

    def _end_if_late(self) -> None:
        process, minutes = self._process, self._config.timeout_minutes
        if process is None or time.monotonic() - self._began < 60 * minutes:
            return
        self._process = None
        os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a dead disk may hold it, but not the training
            process.wait(KILL_S)
        log = self._folder / f"epoch_{self._epoch}.log"
        self._failed(
            self._epoch,
            f"it took longer than train.evaluate.timeout_minutes {minutes:g}. {_last_lines(log)}",
        )

    def stop(self) -> None:
        """End the process; the evaluation goes on where it was at the next start."""
        process, self._process = self._process, None
        for number in (signal.SIGTERM, signal.SIGKILL) if process else ():
            if process is not None and process.poll() is None:
                os.killpg(process.pid, number)
                try:
                    process.wait(END_S)
                except subprocess.TimeoutExpired:
                    continue

    def _checkpoint(self, epoch: int) -> Path:
        return self._run / f"epoch_{epoch}.pth"

    def _hold(self, epoch: int) -> None:
        if self._keeper is not None:
            self._keeper.hold(epoch * self._steps_per_epoch)

    def _release(self, epoch: int) -> None:
        if self._keeper is not None:
            for warning in self._keeper.release(epoch * self._steps_per_epoch):
                warn(warning)

    def _resume(self) -> None:
        """Put into the queue what an earlier start has not evaluated."""
        keep_until(self._path, self._start)
        done = {one.epoch for one in self.results}
        last = self._start // self._steps_per_epoch
        kept = (re.fullmatch(r"epoch_(\d+)\.pth", path.name) for path in self._run.glob("*.pth"))
        epochs = {int(match[1]) for match in kept if match}
        self._queue = sorted(e for e in epochs - done if e <= last and self.wanted(e))
        for epoch in self._queue:
            self._hold(epoch)
        if self._queue:
            names = ", ".join(map(str, self._queue))
            click.echo(f"Not yet evaluated, done now beside the training: epochs {names}")

    def _begin_next(self) -> None:
        if self._process is not None or not self._queue:
            return
        epoch = self._queue.pop(0)
        try:
            self._process = self._start_process(epoch)
        except OSError as error:
            self._failed(epoch, f"it could not be started: {error}")
        self._epoch, self._began = epoch, time.monotonic()

    def _start_process(self, epoch: int) -> subprocess.Popen[bytes]:
        binder = Path(__file__).with_name("child.py")
        command = [sys.executable, "-I", str(binder), str(os.getpid()), str(NICE)]
        command += command_of(self._config, self._split, self._folder, self._checkpoint(epoch))
        # The packages are those of this process, wherever it runs.
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        packages = os.pathsep.join(filter(None, paths))
        self._folder.mkdir(parents=True, exist_ok=True)
        with (
            (self._folder / f"epoch_{epoch}.json").open("wb") as output,
            (self._folder / f"epoch_{epoch}.log").open("wb") as log,
        ):
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=log,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": packages, "PYTHONSAFEPATH": "1"},
                start_new_session=True,  # Ctrl-C is for the training, which ends this
            )  # fmt: skip

    def _end(self, code: int) -> None:
        """Take the figures of the process that has ended."""
        self._process = None
        why = f"it was ended by signal {-code}" if code < 0 else f"exit code {code}"
        if not code:
            try:
                self._new.append(self._result())
            except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
                why = f"its figures cannot be read: {type(error).__name__}: {error}"
            else:
                return
        log = self._folder / f"epoch_{self._epoch}.log"
        self._failed(self._epoch, f"{why}. {_last_lines(log)}")

    def _failed(self, epoch: int, why: str) -> None:
        warn(
            f"epoch {epoch} is not evaluated; the training goes on, the next start tries again if "
            f"the checkpoint is still there: {why}"
        )
        self._release(epoch)

    def _result(self) -> Result:
        """Figures that the process has printed."""
        name = f"epoch_{self._epoch}"
        facts = json.loads((self._folder / f"{name}.json").read_bytes())
        total = next(one["total"] for one in facts["trackers"] if one["tracker"] == name)
        return Result(
            step=self._epoch * self._steps_per_epoch, epoch=self._epoch,
            dataset=self._config.dataset, split=self._split,
            figures={name: float(total[name]) for name in FIGURES},
            seconds=round(time.monotonic() - self._began, 1),
        )  # fmt: skip

    def _settle(self) -> None:
        """Record the results that were handed out, and release their checkpoints."""
        new, self._new = self._new, []
        if not new:
            return
        try:
            append_results(self._path, new)
        except OSError as error:
            warn(f"{self._path} could not be written: {error.strerror}; the next start tries again")
        for one in new:
            self._release(one.epoch)


def command_of(config: EvaluateConfig, split: str, out: Path, checkpoint: Path) -> list[str]:
    """Command of an evaluation; one worker, since the cores belong to the training."""
    return [
        sys.executable, "-m", "tracker", "eval", "--checkpoint", str(checkpoint),
        "--dataset", config.dataset, "--root", str(root_of(config)), "--split", split,
        "--out", str(out), "--name", checkpoint.stem, "--replace", "--workers", "1",
        "--device", config.device, "--json",
    ]  # fmt: skip


def wait(
    evaluations: Evaluations,
    world: World,
    interrupt: Interrupt,
    take: Callable[[Result], None],
) -> int:
    """Wait until no evaluation is left, or a signal ends the run; all ranks must call this.

    Parameters
    ----------
    evaluations : of this rank; those of rank 0 are waited for
    world : the ranks, which agree when to go
    interrupt : signals of this rank
    take : called with each result

    Returns
    -------
    The signal, or 0
    """
    told = False
    while True:
        for one in evaluations.poll():
            take(one)
        if evaluations.left and not told:
            click.echo(
                f"The training is done; waiting for {_counted(evaluations.left)} (a signal ends "
                "that; the same command does what is left)."
            )
            told = True
        wish = world.vote(interrupt.signal or (BUSY if evaluations.left else 0))()
        if wish != BUSY:
            return wish
        time.sleep(WAIT_S)


def _last_lines(path: Path) -> str:
    """End of what a process has written, for a message."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    shown = "".join(f"\n  {line}" for line in lines[-LAST_LINES:])
    return f"{path} ends:{shown}" if shown else f"{path} is empty"


def _counted(count: int) -> str:
    return "1 evaluation" if count == 1 else f"{count} evaluations"
