"""Averages over windows of steps, read from the device without waiting for it.

What a step found is copied to the host in the background and looked at `LAG` steps later, when it
has long been there. Before a checkpoint everything is looked at, so what is saved is complete.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shards.errors import SiamstreamError
from tracker.training.config import TrainConfig
from tracker.training.schedule import learning_rate
from tracker.training.step import PHASES, StepReport
from tracker.training.world import World

__all__ = ["TIMES", "LeftOut", "Meter", "Window", "lag_of"]

LAG = 2  # steps that a CUDA device may be behind
TIMES = ("pairs_per_s", "data_wait_share", "wait_ms", *(f"{name}_ms" for name in PHASES))


def lag_of(device: torch.device) -> int:
    """Steps after which a step is looked at: a CUDA device is behind, a CPU is not."""
    return LAG if device.type == "cuda" else 0


class Window(NamedTuple):
    """Averages of the steps up to and with `step` (from 0), over all ranks."""

    step: int
    epoch: int
    means: dict[str, float | None]
    whole: bool = True  # else it has begun, and is told because the run ends

    def record(self, config: TrainConfig, steps_per_epoch: int) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        lr = learning_rate(config, self.step, self.epoch, steps_per_epoch)
        samples = (self.step + 1) * config.batch_size
        times = {name: value for name, value in self.means.items() if name in TIMES}
        others = {name: value for name, value in self.means.items() if name not in TIMES}
        done = {"step": self.step + 1, "epoch": self.epoch, "samples": samples}
        part = {} if self.whole else {"partial": True}
        return {**done, **part, **others, "lr": lr, **times}


class LeftOut(NamedTuple):
    """A step (from 0) that was left out, and what this rank found in it."""

    step: int
    found: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Pending:
    """A step that is not yet looked at: its values on their way to the host."""

    step: int
    epoch: int
    report: StepReport
    values: Tensor
    left_out: Tensor
    wait_s: float
    at: float


class Meter:
    """Losses, norms and times since the last line of metrics, and the loss of the epoch.

    Its state is part of a checkpoint, so a run that is stopped within a window and resumed logs
    the same numbers as one that is not; times start anew.

    Parameters
    ----------
    log_every : steps of a window; windows count from the start of training
    pairs : of one step, all ranks together
    lag : steps after which a step is looked at
    """

    def __init__(self, log_every: int, pairs: int, lag: int = 0) -> None:
        self.log_every, self.pairs, self.lag = log_every, pairs, lag
        self._pending: deque[_Pending] = deque()
        self._names: tuple[str, ...] = ()
        self._sums: list[float] = []
        self._steps = self._left_out = 0
        self._epoch, self._epoch_sum, self._epoch_steps = -1, 0.0, 0
        self._last = (0, 0)
        self._restart_clock(time.perf_counter())

    def _restart_clock(self, at: float) -> None:
        self._started = self._ended = at
        self._timed, self._wait_s, self._phase_s = 0, 0.0, [0.0] * len(PHASES)

    def add(self, report: StepReport, step: int, epoch: int, wait_s: float) -> None:
        """Take what a step (from 0) found, and the seconds waited for its batch."""
        values = report.values.to("cpu", non_blocking=True)
        left_out = report.left_out.to("cpu", non_blocking=True)
        report.marks.mark()  # after the copies: when this has passed they are there
        at = time.perf_counter()
        self._pending.append(
            _Pending(
                step=step, epoch=epoch, report=report, values=values, left_out=left_out,
                wait_s=wait_s, at=at,
            )
        )  # fmt: skip

    def settle(
        self, world: World, *, everything: bool = False
    ) -> tuple[list[Window], list[LeftOut]]:
        """Look at the steps that are `lag` steps old, or at all; every rank must call this alike.

        Returns
        -------
        windows that have ended, and steps that were left out: equal on all ranks, but for `found`

        Raises
        ------
        SiamstreamError : if a mean is not finite, on every rank
        """
        windows, left_out = [], []
        while len(self._pending) > (0 if everything else self.lag):
            one = self._pending.popleft()
            one.report.marks.wait()
            found = dict(zip(one.report.names, one.values.tolist(), strict=True))
            self._count(one, found)
            if bool(one.left_out):
                left_out.append(LeftOut(one.step, found))
            if (one.step + 1) % self.log_every == 0:
                windows.append(self.window(world))
                self._sums, self._steps, self._left_out = [], 0, 0
                self._restart_clock(one.at)
        return windows, left_out

    def _count(self, one: _Pending, found: Mapping[str, float]) -> None:
        self._names, self._last, self._ended = one.report.names, (one.step, one.epoch), one.at
        if one.epoch != self._epoch:
            self._epoch, self._epoch_sum, self._epoch_steps = one.epoch, 0.0, 0
        self._steps += 1
        self._timed += 1
        self._wait_s += one.wait_s
        spent = one.report.marks.seconds()[: len(PHASES)]
        self._phase_s = [a + b for a, b in zip(self._phase_s, spent, strict=True)]
        if bool(one.left_out):
            self._left_out += 1
            return
        self._sums = [
            a + b for a, b in zip(self._sums or [0.0] * len(found), found.values(), strict=True)
        ]
        self._epoch_sum += found["loss"]
        self._epoch_steps += 1

    def window(self, world: World) -> Window:
        """Averages so far, over all ranks; every rank must call this.

        Losses are means over the steps that were not left out, None if all were; so is grad_norm,
        but for steps of fp16 that its loss scale was too large for, which have none.

        Raises
        ------
        SiamstreamError : if a loss is not finite, on every rank
        """
        counted = self._steps - self._left_out
        times = torch.tensor([self._wait_s, *self._phase_s], dtype=torch.float64)
        sums = torch.tensor(self._sums, dtype=torch.float64) / max(counted, 1)
        *means, wait_s, forward_s, backward_s, optimizer_s = world.mean(
            torch.cat([sums, times])
        ).tolist()
        step, epoch = self._last
        values: dict[str, float | None] = dict.fromkeys(self._names)
        if counted:
            values = dict(zip(self._names, means, strict=True))
            self._refuse_infinite(values, step)
        elapsed_s, timed = max(self._ended - self._started, 1e-9), max(self._timed, 1)
        rates = (
            self._timed * self.pairs / elapsed_s,
            min(wait_s / elapsed_s, 1.0),
            *(1000 * one / timed for one in (wait_s, forward_s, backward_s, optimizer_s)),
        )
        left_out = {"left_out": float(self._left_out)} if self._left_out else {}
        found = {**values, **left_out, **dict(zip(TIMES, rates, strict=True))}
        return Window(step, epoch, found, whole=(step + 1) % self.log_every == 0)

    def _refuse_infinite(self, values: dict[str, float | None], step: int) -> None:
        norm = values["grad_norm"]
        if norm is not None and not math.isfinite(norm):  # fp16 looks for its scale
            values["grad_norm"] = None
        losses = {name: value for name, value in values.items() if name != "grad_norm"}
        if not all(value is not None and math.isfinite(value) for value in losses.values()):
            shown = ", ".join(f"{name} {value:g}" for name, value in losses.items())
            raise SiamstreamError(
                f"the loss is not finite in steps {step - self._steps + 2} to {step + 1}: {shown}; "
                "resume with a lower train.lr in a new --out, or train.amp off"
            )

    def epoch_loss(self, world: World) -> float | None:
        """Mean loss of the epoch so far, over all ranks; every rank must call this."""
        mean = self._epoch_sum / max(self._epoch_steps, 1)
        found = float(world.mean(torch.tensor([mean], dtype=torch.float64))[0])
        return found if self._epoch_steps else None

    def state_dict(self) -> dict[str, Any]:
        """Sums so far; everything must be settled.

        Raises
        ------
        RuntimeError : if a step is not
        """
        if self._pending:
            raise RuntimeError(f"{len(self._pending)} steps are not settled")
        return {
            "names": list(self._names),
            "sums": list(self._sums),
            "steps": self._steps,
            "left_out": self._left_out,
            "epoch": self._epoch,
            "epoch_sum": self._epoch_sum,
            "epoch_steps": self._epoch_steps,
        }

    def load_state_dict(self, states: Sequence[Mapping[str, Any]], rank: int, size: int) -> None:
        """Go on from the `state_dict` of all ranks.

        Parameters
        ----------
        states : of the ranks, in their order
        rank, size : of this process; with another number of ranks each goes on from the mean of all
            sums, so that the mean over ranks stays
        """
        own = dict(states[rank] if len(states) == size else states[0])
        if len(states) != size:
            columns = zip(*(state["sums"] for state in states), strict=True)
            own["sums"] = [sum(column) / len(states) for column in columns]
            own["epoch_sum"] = sum(state["epoch_sum"] for state in states) / len(states)
        self._names, self._sums = tuple(own["names"]), [float(one) for one in own["sums"]]
        self._steps, self._left_out = int(own["steps"]), int(own["left_out"])
        self._epoch, self._epoch_steps = int(own["epoch"]), int(own["epoch_steps"])
        self._epoch_sum = float(own["epoch_sum"])
        self._pending.clear()
        self._restart_clock(time.perf_counter())
