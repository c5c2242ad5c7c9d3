"""Figures of evaluations: a value of one checkpoint, where they are kept and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click

from shards.atomic import replace_text
from shards.console import warn
from tracker.sequences import Dataset
from tracker.training.board import Board

__all__ = ["FIGURES", "MAIN", "Result", "ResultBoard", "append_results", "read_results"]

MAIN: dict[Dataset, Literal["auc", "ao"]] = {
    "otb": "auc", "lasot": "auc", "trackingnet": "auc", "got10k": "ao",
}  # fmt: skip
FIGURES = ("auc", "precision", "norm_precision", "ao", "sr50", "sr75")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Figures of the checkpoint of an epoch; a line of ``evaluations.jsonl``.

    Parameters
    ----------
    step, epoch : steps and epochs done
    dataset, split : that were followed through
    figures : shares 0..1 by name, see `FIGURES`
    seconds : that the evaluation took
    """

    step: int
    epoch: int
    dataset: Dataset
    split: str
    figures: dict[str, float]
    seconds: float

    @property
    def measure(self) -> str:
        """What values of one kind are measured by."""
        return f"{self.dataset} {self.split} {self.name}"

    @property
    def name(self) -> str:
        """Figure by which checkpoints are compared: ``auc``, on GOT-10k ``ao``."""
        return MAIN[self.dataset]

    @property
    def value(self) -> float:
        """Value of that figure."""
        return self.figures[self.name]


def read_results(path: Path) -> list[Result]:
    """Lines of a file of results; what is torn or of another form is passed over."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            facts: dict[str, Any] = json.loads(line)
            found.append(Result(**facts))
        except (ValueError, TypeError):
            continue
    return found


def append_results(path: Path, results: Sequence[Result]) -> None:
    """Add lines to a file of results, all or none; raises OSError."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    replace_text(path, before + "".join(f"{json.dumps(asdict(one))}\n" for one in results))


class ResultBoard:
    """Shows results on the terminal and in TensorBoard, ``eval`` there; a context manager.

    Parameters
    ----------
    folder : of the run
    start : steps done before; TensorBoard's numbers of later ones, from before a fallback, go when
        the first result comes, those of earlier ones stay
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder, self._start = folder / "tensorboard" / "eval", start
        self._board: Board | None = None

    def __enter__(self) -> ResultBoard:
        return self

    def __exit__(self, *_: object) -> None:
        board, self._board = self._board, None
        if board is not None:
            board.close()

    def show(self, result: Result) -> None:
        """Print a result, and add its figures to TensorBoard at its checkpoint's step."""
        click.echo(
            f"Evaluation of epoch {result.epoch} (step {result.step:,}): {result.dataset} "
            f"{result.split}, {result.name.upper()} {result.value:.4f}, in {result.seconds:,.0f} s"
        )
        try:
            if self._board is None:
                self._board = Board(self._folder, self._start, warn)
        except OSError as error:
            warn(f"TensorBoard does not show it: {error}")
        else:
            figures = {f"eval/{name}": value for name, value in result.figures.items()}
            self._board.add_scalars(figures, result.step)
