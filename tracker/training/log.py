"""What a run tells: metrics.jsonl, TensorBoard, a progress line."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from shards.atomic import replace_text
from shards.console import warn
from tracker.training.appender import Appender
from tracker.training.board import Board
from tracker.training.meter import TIMES
from tracker.training.step import PHASES

__all__ = ["RunLog"]

PLAIN_EVERY_S = 5.0
NO_TERMS = ("step", "epoch", "samples", "loss", "grad_norm", "left_out", "lr", *TIMES)


class RunLog:
    """Files and terminal of rank 0; to be closed.

    A disk that takes nothing is said on stderr; what it does not take is written later.

    Parameters
    ----------
    folder : of the run
    start, target : steps done before, and at the end
    """

    def __init__(self, folder: Path, start: int, target: int) -> None:
        self.target, self._told = target, -math.inf
        path = folder / "metrics.jsonl"
        keep_until(path, start)
        self._file = Appender(path, warn)
        self.board = Board(folder / "tensorboard", start, warn)
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
        self._file.append(f"{json.dumps(record)}\n".encode())
        scalars = {
            f"train/{name}": value
            for name, value in record.items()
            if name not in ("step", "samples") and value is not None
        }
        self.board.add_scalars(scalars, record["step"])
        terms = ", ".join(
            f"{n} {_shown(value)}" for n, value in record.items() if n not in NO_TERMS
        )
        parts = ", ".join(f"{name} {record[f'{name}_ms']:,.0f}" for name in ("wait", *PHASES))
        text = (
            f"step {record['step']:,}/{self.target:,}  epoch {record['epoch']}  "
            f"loss {_shown(record['loss'])}  lr {record['lr']:.3g}  "
            f"{record['pairs_per_s']:,.1f} pairs/s  ms a step: {parts}"
        )
        if self._bar:
            self._bar.update(self._task, description=text, completed=record["step"])
        elif time.monotonic() - self._told > PLAIN_EVERY_S or record["step"] == self.target:
            self._told = time.monotonic()
            click.echo(f"{text}  ({terms})")


def keep_until(path: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl after a step, those that are torn, and partial ones.

    A window that had begun when the run was stopped is told again when it is whole. A disk that
    takes nothing is said, and ends no run that goes on.

    Parameters
    ----------
    path : file; if there is none, none is made
    step : last that is kept; 0: all go

    Raises
    ------
    OSError : at step 0, if the file cannot be read or written
    """
    try:
        _keep_until(path, step)
    except OSError as error:
        if not step:
            raise
        warn(
            f"{path}: lines after step {step:,} could not be dropped, and will be there twice: "
            f"{error.strerror or error}"
        )


def _keep_until(path: Path, step: int) -> None:
    if not path.is_file():
        return
    data = path.read_bytes()
    lines = data.decode(errors="replace").splitlines()
    kept = "".join(f"{line}\n" for line in lines if _step(line) <= step).encode()
    if kept != data and step and data.startswith(kept):
        os.truncate(path, len(kept))  # works on a full disk too
    elif kept != data or not step:
        replace_text(path, kept.decode())


def _step(line: str) -> float:
    try:
        record = json.loads(line)
        return math.inf if record.get("partial") else float(record["step"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return math.inf


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
