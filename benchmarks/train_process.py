"""Trainings in processes of their own, as `benchmarks.train` drives them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from benchmarks.child_process import child_env
from benchmarks.runner import ContestantError
from benchmarks.train_child import TrainCase

__all__ = ["Process", "Trainer"]

LIMIT_S = 1800.0  # of one answer


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
        self._name = f"training fed by {what.feed} {options}".rstrip()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.train_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=child_env(),
        )
        try:
            self.facts: dict[str, float] = self._ask(asdict(what))
        except BaseException:
            self.close()
            raise

    def block(self, steps: int, warm_up: int) -> dict[str, Any]:
        """See `Session.block`."""
        return self._ask({"do": "block", "steps": steps, "warm_up": warm_up})

    def alone(self, seconds: float) -> dict[str, Any]:
        """See `Session.alone`."""
        return self._ask({"do": "alone", "seconds": seconds})

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.close()
            self._child.wait(timeout=30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._errors.close()

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        timer = threading.Timer(LIMIT_S, self._child.kill)
        timer.start()
        try:
            self._child.stdin.write(json.dumps(order) + "\n")
            self._child.stdin.flush()
            lines = (line for line in self._child.stdout if line.startswith("{"))  # or chatter
            answer: dict[str, Any] = json.loads(next(lines, "{}"))
        except BrokenPipeError:
            answer = {}
        finally:
            timer.cancel()
        if not answer or "failed" in answer:
            self._child.wait()
            self._errors.seek(0)
            last = " | ".join(self._errors.read().strip().splitlines()[-3:])
            reason = answer.get("failed") or last or "it ended without a word"
            raise ContestantError(f"{self._name} failed: {reason}")
        return answer
