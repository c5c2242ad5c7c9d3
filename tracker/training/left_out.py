"""Steps that were left out because something was not finite: said, saved, and counted."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shards.errors import SiamstreamError
from tracker.training.meter import LeftOut
from tracker.training.world import World

__all__ = ["LeftOutSteps"]


class LeftOutSteps:
    """Judge of steps whose loss or gradients were not finite.

    The weights are as if the step had not been. Each such step is told with its samples and this
    rank's batch is saved; one more than the budget ends the run on all ranks.

    Parameters
    ----------
    out : folder of the run; batches go to ``left_out/step_<n>_rank<r>.pt``
    budget : how many may be, since the start of training
    lag : of the meter: how many batches must be kept until their step is looked at
    say : told a warning, on rank 0
    """

    def __init__(self, out: Path, budget: int, lag: int, say: Callable[[str], None]) -> None:
        self.out, self.budget, self._say = out, budget, say
        self.count = 0
        self._kept: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=lag + 1)

    def keep(self, step: int, batch: Mapping[str, Any]) -> None:
        """Hold a step's batch (tensors and numbers by name, with ``sample`` and ``epoch``)."""
        self._kept.append((step, batch))

    def judge(self, found: Sequence[LeftOut], world: World, saved_step: int) -> None:
        """Deal with steps that were left out; every rank must call this alike.

        Parameters
        ----------
        found : of `Meter.settle`
        world : of the run
        saved_step : steps of the last checkpoint, for the message

        Raises
        ------
        SiamstreamError : if there have been more than the budget allows
        """
        for one in found:
            self.count += 1
            batch = next(batch for step, batch in self._kept if step == one.step)
            where = self._save(one.step, batch, one.found, world.rank)
            infinite = {
                name: value for name, value in one.found.items() if not math.isfinite(value)
            }
            told = world.gather((infinite, sorted(batch["sample"].tolist()), where))
            text = f"step {one.step + 1} was left out: {_told(told)}; epoch {batch['epoch']}"
            samples = sorted(number for _, numbers, _ in told for number in numbers)
            text += f", samples {samples[0]} to {samples[-1]}. {told[_worst(told)][2]}. "
            text += (
                f"Look at them: python -m loaders show --config {self.out / 'config.yaml'} "
                f"--epoch {batch['epoch']} --samples {samples[0]}:{samples[-1] + 1} --out bad.png"
            )
            if self.count > self.budget:
                raise SiamstreamError(
                    f"{text}\n{self.count} such steps, train.max_bad_steps is {self.budget}; the "
                    f"last checkpoint is of step {saved_step:,}. Try a lower train.lr in a new "
                    "--out, train.amp off, or allow some with --set train.max_bad_steps=10"
                )
            if world.first:
                self._say(f"{text} ({self.count} of {self.budget} that may be)")

    def state_dict(self) -> int:
        """How many there have been."""
        return self.count

    def load_state_dict(self, states: Sequence[int], rank: int, size: int) -> None:
        """Go on from the number that all ranks had."""
        del rank, size
        self.count = int(states[0])

    def _save(
        self, step: int, batch: Mapping[str, Any], found: Mapping[str, float], rank: int
    ) -> str:
        """Write this rank's batch; returns where it is, or why not: training can do without."""
        path = self.out / "left_out" / f"step_{step + 1:08d}_rank{rank}.pt"
        here = {
            name: value.cpu() if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"step": step + 1, "found": dict(found), "batch": here}, path)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return f"Its batch could not be saved ({str(error).splitlines()[0]})"
        return f"The batch is {path}"


def _worst(told: Sequence[tuple[dict[str, float], list[int], str]]) -> int:
    """Rank whose own losses were not finite, else the first: all ranks share the gradients."""
    own = [any(name != "grad_norm" for name in infinite) for infinite, _, _ in told]
    return own.index(True) if any(own) else 0


def _told(told: Sequence[tuple[dict[str, float], list[int], str]]) -> str:
    """What was not finite; of several ranks, on which."""
    worst = _worst(told)
    values = ", ".join(f"{name} {value:g}" for name, value in told[worst][0].items())
    values = values or "a gradient was too large"
    return f"on rank {worst}, {values}" if len(told) > 1 else values
