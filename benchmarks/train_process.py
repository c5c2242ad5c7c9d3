"""Trainings in processes of their own, as `benchmarks.train` drives them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from benchmarks.asked_process import AskedProcess
from benchmarks.train_child import TrainCase

__all__ = ["Process", "Trainer"]


class Trainer(Protocol):
    """One model in training: `benchmarks.train_child.Session`, here or in a process."""

    facts: dict[str, float]

    def block(self, steps: int, warm_up: int) -> dict[str, Any]:
        """Train for some steps."""

    def alone(self, seconds: float) -> dict[str, Any]:
        """Take batches without training."""

    def close(self) -> None:
        """End it."""


class Process:
    """`benchmarks.train_child.Session` in a process of its own; to be closed.

    Parameters
    ----------
    what : it trains

    Raises
    ------
    ContestantError : here or later, if it fails or does not answer
    """

    def __init__(self, what: TrainCase) -> None:
        options = " ".join([*what.overrides, *([] if what.fused else ["optimiser not fused"])])
        name = f"training fed by {what.feed} {options}".rstrip()
        self._asked = AskedProcess("benchmarks.train_child", name, asdict(what))
        self.facts: dict[str, float] = self._asked.facts

    def block(self, steps: int, warm_up: int) -> dict[str, Any]:
        """See `Session.block`."""
        return self._asked.do("block", steps=steps, warm_up=warm_up)

    def alone(self, seconds: float) -> dict[str, Any]:
        """See `Session.alone`."""
        return self._asked.do("alone", seconds=seconds)

    def close(self) -> None:
        """End the process."""
        self._asked.close()
