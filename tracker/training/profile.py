"""Profile a few steps of a run with torch's profiler: a trace to look at, and a table to read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import click
import torch
from torch.profiler import ProfilerAction, ProfilerActivity, profile

from shards.atomic import replace_text
from shards.errors import one_line
from shards.sink import storage_error

__all__ = ["SKIP", "STEPS", "Profiler", "profile_option"]

STEPS = 5  # profiled where no number is given
SKIP = 10  # steps before: compiling, choice of kernels, filling of buffers
WARM_UP = 3  # of these, the last so many run with the profiler, whose own start costs time too
ROWS = 40


profile_option = click.option(
    "--profile", type=click.IntRange(1), is_flag=False, flag_value=STEPS, metavar="[N]",
    help=f"Write a trace of N steps by torch's profiler.  [N: {STEPS} if left out]",
)  # fmt: skip


def _say(text: str) -> None:
    click.echo(text, err=True)


class Profiler:
    """Profiles some steps of a loop that calls `step` after each; a context manager.

    Without steps to profile it does nothing at all. The numbers of the training are the same with
    and without; a profiler that fails is a warning. Where the loop fails, what there is is written
    without waiting for the device, and the loop's error is the one that is raised.

    Parameters
    ----------
    folder : of the run; files go to its ``profile/``
    steps : to profile; 0: none
    first : steps done before the loop, for names of files
    left : steps that the loop will do; where these are few, fewer are left out before
    device : whose work is recorded beside that of the CPU
    say : told where the files are, or why there are none
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        *,
        first: int,
        left: int,
        device: torch.device,
        say: Callable[[str], None] = _say,
    ) -> None:
        self._folder, self._steps, self._first, self._say = folder / "profile", steps, first, say
        self._skip = min(SKIP, max(0, left - steps))
        self._warm_up = min(WARM_UP, self._skip)
        self._done, self._cuda = 0, device.type == "cuda"
        self._cuda_waits = self._cuda
        self._profile: profile | None = None

    def __enter__(self) -> Profiler:
        self._try(self._begin_if_due)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._steps:  # the loop has ended before all were profiled
            self._cuda_waits = self._cuda and error is None
            self._try(self._end)

    def step(self) -> None:
        """Note that a step has been done."""
        if self._steps:
            self._done += 1
            self._try(self._advance)

    def _try(self, action: Callable[[], None]) -> None:
        """Do it; if that fails, say so, and profile no more."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 (a profile is not worth a run, whatever fails)
            self._steps, self._profile = 0, None
            self._say(f"Warning: there is no profile, the profiler failed: {one_line(error)}")

    def _advance(self) -> None:
        if self._done == self._skip + self._steps:
            self._end()
        elif self._profile is not None:
            self._profile.step()
        else:
            self._begin_if_due()

    def _begin_if_due(self) -> None:
        if not self._steps or self._done < self._skip - self._warm_up:
            return
        activities = [ProfilerActivity.CPU]
        if self._cuda:
            activities.append(ProfilerActivity.CUDA)
        else:  # else the profiler complains that there is no GPU
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self._profile = profile(
            activities=activities, schedule=self._action, record_shapes=True, acc_events=True
        )
        self._profile.start()

    def _action(self, step: int) -> ProfilerAction:
        """What torch's profiler does in a step, from 0 where it starts."""
        return ProfilerAction.WARMUP if step < self._warm_up else ProfilerAction.RECORD

    def _end(self) -> None:
        """Stop for good, and write what there is."""
        found, self._profile, wanted, self._steps = self._profile, None, self._steps, 0
        if found is None:
            recorded = 0
        else:
            recorded = max(0, self._done - self._skip)
            if self._cuda_waits:
                torch.cuda.synchronize()  # what was started in the last step belongs to it
            found.stop()
        if found is None or not recorded:
            self._say(
                f"Profile: nothing to write, the run ended after {self._done} steps and the first "
                f"{self._skip} are left out"
            )
            return
        last = self._first + self._done
        name = f"steps_{last - recorded + 1}-{last}"
        try:
            self._write(found, name)
        except OSError as error:  # a profile is not worth a run
            self._say(f"Warning: {storage_error(error, self._folder)}; there is no profile")
            return
        short = "" if recorded == wanted else f" ({wanted} were asked for, the run ended)"
        self._say(
            f"Profile of {recorded} steps{short}: {self._folder / name}.json.gz, for "
            f"ui.perfetto.dev or chrome://tracing, and a table of operators, {name}.txt"
        )

    def _write(self, found: profile, name: str) -> None:
        """Write both files, each whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        where = "cuda" if self._cuda else "cpu"
        table = found.key_averages().table(
            sort_by=f"self_{where}_time_total", row_limit=ROWS, max_name_column_width=60
        )
        replace_text(self._folder / f"{name}.txt", f"{table}\n")
        partial = self._folder / f".{name}.partial.json.gz"  # the ending tells torch to compress
        try:
            found.export_chrome_trace(str(partial))
            partial.replace(self._folder / f"{name}.json.gz")
        finally:
            partial.unlink(missing_ok=True)
