"""What a run tells: window averages, metrics.jsonl, TensorBoard, a progress line, its records.

Losses are added up on the device and read once per window, as the mean over its steps and ranks.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from shards.errors import SiamstreamError
from tracker.training.config import TrainConfig
from tracker.training.schedule import learning_rate
from tracker.training.world import World

__all__ = ["Meter", "RunLog", "record", "replace_text"]

PLAIN_EVERY_S = 5.0


class Meter:
    """Averages since the last line of metrics.

    The losses are part of a checkpoint, so a run that is stopped within a window and resumed logs
    the same numbers as one that is not; times start anew.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.steps = 0
        self._sums: Tensor | None = None
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._started, self._timed, self._wait_s = time.perf_counter(), 0, 0.0

    def add(self, losses: Mapping[str, Tensor], wait_s: float) -> None:
        """Count a step: its losses (scalars on the device) and seconds waited for its batch."""
        values = torch.stack([value.double() for value in losses.values()])
        self.names = list(losses)
        self._sums = values if self._sums is None else self._sums + values
        self.steps += 1
        self._timed += 1
        self._wait_s += wait_s

    def read(self, world: World, step: int, pairs: int) -> dict[str, float]:
        """Averages of the window, over all ranks: losses, pairs_per_s, data_wait_share.

        Parameters
        ----------
        world : every rank must call this
        step : steps done, for messages
        pairs : of one step, all ranks together

        Raises
        ------
        SiamstreamError : if a loss is not finite, on every rank
        """
        if self._sums is None:
            raise ValueError("no step has been added")
        here = torch.cat([self._sums.cpu() / self.steps, torch.tensor([self._wait_s]).double()])
        elapsed_s = max(time.perf_counter() - self._started, 1e-9)  # after the device has ended
        *losses, wait_s = world.mean(here).tolist()
        found = dict(zip(self.names, losses, strict=True))
        if not all(math.isfinite(value) for value in losses):
            shown = ", ".join(f"{name} {value:g}" for name, value in found.items())
            raise SiamstreamError(
                f"the loss is not finite in steps {step - self.steps + 1} to {step}: {shown}; "
                "resume with a lower train.lr in a new --out, or train.amp off"
            )
        found["pairs_per_s"] = self._timed * pairs / elapsed_s
        found["data_wait_share"] = min(wait_s / elapsed_s, 1.0)
        return found

    def reset(self) -> None:
        """Begin the next window."""
        self._sums, self.steps = None, 0
        self._restart_clock()

    def state_dict(self) -> dict[str, Any]:
        """Losses of the window so far."""
        sums = [] if self._sums is None else self._sums.tolist()
        return {"names": self.names, "sums": sums, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on in the window of `state_dict`."""
        self.names, self.steps = list(state["names"]), int(state["steps"])
        sums = torch.tensor(state["sums"], dtype=torch.float64, device=device)
        self._sums = sums if self.steps else None
        self._restart_clock()


class RunLog:
    """Files and terminal of rank 0; to be closed.

    Parameters
    ----------
    folder : of the run
    start, target : steps done before, and at the end
    """

    def __init__(self, folder: Path, start: int, target: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, wanted here only

        self.target, self._told = target, -math.inf
        path = folder / "metrics.jsonl"
        keep_until(path, start)
        self._file = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            self._bar = Progress(TextColumn("{task.description}"), TimeRemainingColumn())
            self._task = self._bar.add_task("first steps", total=target, completed=start)
            self._bar.start()

    def close(self) -> None:
        """Leave the terminal as it was and finish the files."""
        if self._bar:
            self._bar.stop()
        self._file.close()
        self.board.close()

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def write(self, record: Mapping[str, Any]) -> None:
        """Log one window: a line of JSON, scalars, and the progress line."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in record.items():
            if name not in ("step", "samples"):
                self.board.add_scalar(f"train/{name}", value, record["step"])
        losses = ("step", "epoch", "samples", "loss", "lr", "pairs_per_s", "data_wait_share")
        terms = ", ".join(f"{n} {v:.4g}" for n, v in record.items() if n not in losses)
        text = (
            f"step {record['step']:,}/{self.target:,}  epoch {record['epoch']}  "
            f"loss {record['loss']:.4f}  lr {record['lr']:.3g}  "
            f"{record['pairs_per_s']:,.1f} pairs/s  data wait {record['data_wait_share']:.0%}"
        )
        if self._bar:
            self._bar.update(self._task, description=text, completed=record["step"])
        elif time.monotonic() - self._told > PLAIN_EVERY_S or record["step"] == self.target:
            self._told = time.monotonic()
            click.echo(f"{text}  ({terms})")


def record(config: TrainConfig, step: int, epoch: int, means: dict[str, float]) -> dict[str, Any]:
    """One line of metrics.jsonl: the window that ends with this step."""
    rates = {name: means.pop(name) for name in ("pairs_per_s", "data_wait_share")}
    lr = learning_rate(config, step, epoch)
    done = {"step": step + 1, "epoch": epoch, "samples": (step + 1) * config.batch_size}
    return {**done, **means, "lr": lr, **rates}


def keep_until(path: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl that come after a step, and any that are torn."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if _step(line) <= step]
    if len(kept) < len(lines) or not step:
        replace_text(path, "".join(f"{line}\n" for line in kept))


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def replace_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
