"""An evaluation as tables for a terminal and as one JSON object. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from tracker.scores import Evaluation, Score, TrackerScore

__all__ = ["facts", "fps", "tables"]

NAME_WIDTH, NAME_WIDTH_MOST = 14, 30


def fps(tracker: TrackerScore) -> float | None:
    """Frames a second over all sequences that were timed; None if none was."""
    timed = [(len(one.overlap), one.fps) for one in tracker.sequences if one.fps]
    return sum(n for n, _ in timed) / sum(n / rate for n, rate in timed) if timed else None


def facts(evaluation: Evaluation) -> dict[str, Any]:
    """Evaluation as one JSON object: all figures, curves of the totals alone."""

    def figures(score: Score) -> dict[str, Any]:
        return {k: v for k, v in asdict(score).items() if not k.endswith("_curve")}

    return {
        "dataset": evaluation.dataset,
        "split": evaluation.split,
        "convention": evaluation.convention,
        "trackers": [
            {
                "tracker": one.tracker,
                "fps": fps(one),
                "total": asdict(one.total),
                "sequences": [
                    {"name": own.name, "fps": own.fps, **figures(own.score)}
                    for own in one.sequences
                ],
            }
            for one in evaluation.trackers
        ],
        "notes": list(evaluation.notes),
    }


_COLUMNS = ("AUC", "prec.", "norm. p.", "AO", "SR .5", "SR .75", "fps")


def _row(score: Score, speed: float | None) -> list[str]:
    values = (score.auc, score.precision, score.norm_precision, score.ao, score.sr50, score.sr75)
    figures = [f"{value:.3f}" if score.frames else "-" for value in values]
    return [*figures, "" if speed is None else f"{speed:.1f}"]


def tables(evaluation: Evaluation, per_sequence: bool) -> list[Table]:
    """Tables for a terminal: one of all trackers, and if asked for one of the first's sequences."""
    count = len(evaluation.trackers[0].sequences) if evaluation.trackers else 0
    title = f"{evaluation.dataset} {evaluation.split}, {count} sequences, rules of "
    found = [_table("tracker", title + evaluation.convention, [])]
    for one in evaluation.trackers:
        found[0].add_row(one.tracker, *_row(one.total, fps(one)))
    if per_sequence and evaluation.trackers:
        first = evaluation.trackers[0]
        names = [own.name for own in first.sequences]
        found.append(_table("sequence", first.tracker, names))
        for own in first.sequences:
            found[1].add_row(own.name, *_row(own.score, own.fps))
    return found


def _table(first: str, title: str, names: list[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    width = min(max([NAME_WIDTH, *map(len, names)]), NAME_WIDTH_MOST)
    table.add_column(first, overflow="fold", min_width=width)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    return table
