"""Try a grid of tracking settings on a validation set.

Every setting is a whole run, for a box depends on all boxes before it. Results are the files of an
evaluation, in ``<out>/runs``, one tracker a setting; a run that was killed goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from shards.errors import DataError, MismatchError
from shards.sink import FolderSink
from tracker.entrants import Entrant, Opened
from tracker.evaluate import report_folder, score_all
from tracker.grid import Axis, Figure, Setting, best_of_rest, ranked
from tracker.ledger import read_ledger
from tracker.onepass import KEEP_FIRST_BOX
from tracker.plots import grid_plot
from tracker.results import trackers_in
from tracker.runs import EvaluationError, follow_missing, keep_first_box
from tracker.sequences import Convention, Dataset, Sequences, VideoSequence
from tracker.sweep_text import LABELS, Sweep, facts, warnings_of

__all__ = ["MAP", "SUMMARY", "Contestant", "contestants_of", "sweep"]

RUNS, SUMMARY, MAP = "runs", "sweep.json", "sweep.png"
SHOWN_FAILURES = 10
FIGURES: dict[Dataset, Figure] = {
    "otb": "auc",
    "lasot": "auc",
    "got10k": "ao",
    "trackingnet": "auc",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """A setting that can be followed with: `make` its tracker, what it is `made_by`."""

    setting: Setting
    make: Callable[[], Any]
    made_by: Mapping[str, str]


def contestants_of(checkpoint: Opened, settings: Sequence[Setting]) -> list[Contestant]:
    """Contestants of a grid: the same checkpoint under each setting."""
    return [
        Contestant(
            setting=one,
            make=dataclasses.replace(
                checkpoint.make, overrides=(*checkpoint.make.overrides, *one.overrides)
            ),
            made_by=checkpoint.made_by | {key: str(value) for key, value in one.values},
        )
        for one in settings
    ]


def sweep(
    sequences: Sequences,
    out: Path,
    *,
    contestants: Sequence[Contestant],
    axes: Sequence[Axis],
    convention: Convention,
    workers: int,
    tell: Callable[[str], None],
) -> Sweep:
    """Follow all sequences with all settings, score them, write ``sweep.json`` and ``sweep.png``.

    Parameters
    ----------
    sequences : those without public ground truth are left out
    out : folder; holds the sweeps of one checkpoint
    contestants : the settings of the grid, in its order
    axes : of the grid
    convention : by whose rules scores are counted
    workers : processes
    tell : takes lines for the user: counts, and an estimate after the first setting

    Raises
    ------
    DataError : if no sequence has public ground truth, or no frame counts
    MismatchError : if the folder holds a sweep of something else
    EvaluationError : if sequences could not be followed; all others were
    """
    scored = tuple(one for one in sequences if one.scored)
    if not scored:
        raise DataError(
            f"{sequences.dataset} {sequences.split}: its ground truth is not public, so settings "
            "cannot be compared on it; use got10k val"
        )
    left_out = len(sequences) - len(scored)
    sequences = dataclasses.replace(sequences, sequences=scored)
    runs = out / RUNS
    _check_same(runs, sequences.dataset, contestants)
    notes = _follow(sequences, runs, contestants, workers, tell)
    keep_first_box(sequences, runs)
    first = contestants[0].setting.name
    evaluation = score_all(sequences, runs, first=first, convention=convention)
    scores = {one.tracker: one for one in evaluation.trackers}
    if not scores:
        raise DataError(
            f"{sequences.dataset} {sequences.split}: no frame of these sequences counts by the "
            f"rules of {convention}, so settings cannot be compared on them"
        )
    figure = FIGURES[sequences.dataset]
    found = Sweep(
        dataset=sequences.dataset,
        split=sequences.split,
        convention=convention,
        figure=figure,
        axes=tuple(axes),
        order=tuple(ranked([one.setting for one in contestants], scores, figure)),
        floor=scores[KEEP_FIRST_BOX].total,
        warnings=warnings_of(sequences.dataset, sequences.split),
        notes=(
            *sequences.notes,
            *[f"{left_out} sequences without public ground truth are left out"] * bool(left_out),
            *notes,
        ),
    )
    _write(out, found)
    return found


def _check_same(runs: Path, dataset: Dataset, contestants: Sequence[Contestant]) -> None:
    """Refuse a folder with runs of another checkpoint, device or other fixed settings."""
    mine = contestants[0].made_by
    swept = {key for key, _ in contestants[0].setting.values}
    fixed = [key for key in mine if not key.startswith("track.")]
    grid = {one.setting.name for one in contestants}
    for name in trackers_in(runs, dataset):
        ledger = read_ledger(runs, dataset, name)
        if ledger is None:
            continue
        # Of settings that another grid tried, its own parameters may differ.
        keys = [key for key in mine if key not in swept] if name in grid else fixed
        for key in keys:
            there = ledger.made_by.get(key)
            if there != mine[key]:
                raise MismatchError(
                    f"{runs}: holds a sweep of another {key} ({_short(there)} there, "
                    f"{_short(mine[key])} now); give another --out"
                )


def _short(text: str | None) -> str:
    return "none" if text is None else text if len(text) <= 20 else f"{text[:12]}..."


def _follow(
    sequences: Sequences,
    runs: Path,
    contestants: Sequence[Contestant],
    workers: int,
    tell: Callable[[str], None],
) -> tuple[str, ...]:
    """Write the result files that are not there yet; returns notes on the sequences."""
    pace = _Pace(tell)
    found = follow_missing(
        sequences,
        runs,
        [Entrant(name=c.setting.name, make=c.make, made_by=c.made_by) for c in contestants],
        workers=workers,
        title="sweep",
        planned=lambda todo: pace.begin(todo, len(contestants), len(sequences)),
        ended=pace.ended,
    )
    if found.failures:
        lines = [f"{name}, {sequence}: {error}" for name, sequence, error in found.failures]
        raise EvaluationError(
            f"{len(lines)} of {found.begun} runs failed, so there is no table; the others are "
            "kept, the same command goes on with these:\n  "
            + "\n  ".join(lines[:SHOWN_FAILURES])
            + f"\n  and {len(lines) - SHOWN_FAILURES} more" * (len(lines) > SHOWN_FAILURES)
        )
    return found.notes


class _Pace:
    """How many runs there are, and how long they will take.

    Parameters
    ----------
    tell : takes lines for the user
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._runs: list[tuple[str, int]] = []  # setting and frames of each
        self._left: list[str] = []
        self._done, self._told = 0, False

    def begin(
        self, todo: Sequence[tuple[Entrant, VideoSequence]], settings: int, sequences: int
    ) -> None:
        """Say how much there is to do."""
        self._runs = [(one.name, len(sequence.frames)) for one, sequence in todo]
        self._left = [name for name, _ in self._runs]
        self._frames, self._began = sum(frames for _, frames in self._runs), monotonic()
        total = settings * sequences
        self._tell(
            f"{settings} settings x {sequences} sequences = {total:,} runs; {len(todo):,} to "
            f"do ({self._frames:,} frames), {total - len(todo):,} done before"
        )

    def ended(self, position: int) -> None:
        """Count a run; after the first whole setting say how long the others will take."""
        name, frames = self._runs[position]
        self._done += frames
        self._left.remove(name)
        if self._told or name in self._left or not self._left:
            return
        self._told = True
        spent = monotonic() - self._began
        left = spent * (self._frames - self._done) / self._done
        self._tell(
            f"the first setting took {_time(spent)}; about {_time(left)} for the "
            f"{len(set(self._left))} others"
        )


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _write(out: Path, found: Sweep) -> None:
    """Write the summary, and the map if two parameters have several values."""
    sink = FolderSink(report_folder(out, found.dataset, found.split))
    wide = [axis for axis in found.axes if len(axis.values) > 1]
    if len(wide) >= 2:
        down, across = wide[0], wide[1]
        over = "".join(f", best {axis.name}" for axis in wide[2:])
        cells = best_of_rest(found.order, down, across, found.figure)
        title = f"{LABELS[found.figure]} on {found.dataset} {found.split}{over}"
        plot = grid_plot(
            cells.tolist(), across=(across.key, across.values), down=(down.key, down.values),
            figure_name=title,
        )  # fmt: skip
        sink.write(MAP, plot)
    else:
        sink.remove([MAP])
    sink.write(SUMMARY, json.dumps(facts(found), indent=1).encode())
